"""What a compiled kernel uses of a GPU, read from its machine code; needs no GPU."""

import importlib.util
import re
import subprocess
import tempfile
from pathlib import Path

from kernels import triton_compile


def resources(compiled: triton_compile.Compiled) -> dict[str, int]:
    """Registers, stack and local bytes a thread, shared bytes a program, and its warps.

    The tool that reads them comes with Triton.
    """
    package = Path(importlib.util.find_spec("triton").origin).parent
    tool = package / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.cubin)
        file.flush()
        report = subprocess.run(
            [tool, "--dump-resource-usage", file.name], capture_output=True, text=True, check=True
        ).stdout
    found = dict(re.findall(r"\b(REG|STACK|LOCAL):(\d+)", report))
    return {
        "registers": int(found["REG"]),
        "spill_bytes": int(found["STACK"]) + int(found["LOCAL"]),
        "shared_bytes": compiled.shared_bytes,
        "warps": compiled.num_warps,
    }
