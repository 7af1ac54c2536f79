"""The log of a run: TensorBoard's events, and a disk that is full."""

import errno
import struct

import numpy as np
import pytest
from tensorboardX.proto import event_pb2

from instant_gs.training import writer


def _events(folder):
    (path,) = (folder / "tensorboard").iterdir()
    content, events = path.read_bytes(), []
    while content:  # length, its checksum, an event, its checksum
        (size,) = struct.unpack("<Q", content[:8])
        events.append(event_pb2.Event.FromString(content[12 : 12 + size]))
        content = content[16 + size :]
    return events


def test_tensorboard_gets_scalars_and_pictures_at_once(tmp_path):
    log = writer.MetricWriter(tmp_path, 3)
    log.scalars(4, {"avatar/loss": 0.5})
    log.image(4, "validation", np.full((8, 6, 3), 200, np.uint8))
    _, start, scalar, image = _events(tmp_path)
    assert start.step == 4 and start.session_log.status == event_pb2.SessionLog.START
    assert (scalar.step, scalar.summary.value[0].tag) == (4, "avatar/loss")
    assert scalar.summary.value[0].simple_value == 0.5
    picture = image.summary.value[0].image
    assert (picture.height, picture.width) == (8, 6)
    log.close()


def test_a_full_disk_ends_the_call_and_does_not_block_the_next(tmp_path):
    log = writer.MetricWriter(tmp_path)
    log.close()
    with open("/dev/full", "wb", buffering=0) as full:
        log._events._py_recordio_writer._writer = full
        for step in range(1, 30):  # more than any queue holds
            with pytest.raises(OSError) as caught:
                log.scalars(step, {f"avatar/{name}": 1.0 for name in range(10)})
            assert caught.value.errno == errno.ENOSPC
        log.close()  # says nothing more
