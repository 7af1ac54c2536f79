"""Writes small_checkpoint.pth beside this file. Needs PyTorch, which nothing else here does.

The stored file was written with PyTorch 2.13.0; test_torch_file.py knows its numbers.
"""

import collections
import pathlib

import torch

ramp = torch.arange(24, dtype=torch.float32).reshape(4, 6) / 8
tensors = collections.OrderedDict(
    plain=ramp,
    transposed=ramp.t(),  # shares the storage of the first, as does the next
    row=ramp[2],
    half=ramp.half(),
    bfloat=ramp.bfloat16(),
    double=ramp.double(),
    count=torch.tensor(1000),
    flags=torch.tensor([True, False]),
    empty=torch.zeros(0, 3),
    parameter=torch.nn.Parameter(ramp[0] + 1),
)
norm = torch.nn.BatchNorm2d(3)
checkpoint = {
    "E_state_dict": tensors,
    "M_state_dict": norm.state_dict(),  # an OrderedDict with attributes, and a counter
    "step": 12,
    "history": [ramp[:1, :2], "text", None, (1.5, True)],
}
torch.save(checkpoint, pathlib.Path(__file__).with_name("small_checkpoint.pth"))
