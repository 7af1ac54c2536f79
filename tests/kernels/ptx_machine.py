"""Runs compiled kernels without a GPU: PTX on NumPy arrays, one element a thread of the grid.

Triton's interpreter runs what a kernel says; this runs what Triton's compiler made of it, some
twenty times as fast, and raises `Fault` where that is not defined (`ptx_memory`): accesses out of
bounds or misaligned, races between threads and between programs, threads of a warp that have
parted where they must act together. It knows the PTX that Triton makes of our kernels; for anything
else it raises NotImplementedError.

All programs of a grid run at once. Where threads have parted, those farthest behind in the text run
first, so that they meet again.
"""

import re
from typing import NamedTuple

import numpy as np

from tests.kernels import ptx_ops
from tests.kernels.ptx_memory import Fault, Memory, Threads

_WARP = 32
_REGISTERS = {"pred": bool, "b16": np.uint16, "b32": np.uint32, "b64": np.uint64, "f32": np.uint32}
_BASE, _GAP = 1 << 12, 1 << 10  # bytes before the first array, and between arrays


def run(compiled, grid, operands: list, outputs: list, scalars: list, rng) -> None:
    """Runs one launch.

    Args:
        compiled: `triton_compile.Compiled`.
        grid: Programs in x, y, z.
        operands: Arrays that the kernel reads.
        outputs: Arrays that it writes, changed in place. An array that is an operand, too, begins
            as that; of others nothing may be read before it is written.
        scalars: Numbers that follow the arrays.
        rng: Decides the order of atomic additions.

    Raises:
        Fault: The kernel did what a GPU does not define.
        NotImplementedError: An instruction is not known here.
    """
    _Machine(compiled, grid, operands, outputs, scalars, rng).run()


class _Address(NamedTuple):
    """[base + offset]"""

    base: str
    offset: int


class _Instruction(NamedTuple):
    """`text` taken apart; executed where `predicate` is true, or false if `negated`."""

    predicate: str | None
    negated: bool
    name: str
    operands: list
    text: str


def _parse(ptx: str) -> tuple[list[str], dict[str, str], list[str]]:
    """A kernel's labels (with their colon) and instructions, registers' types, parameters."""
    head, _, body = re.sub(r"//[^\n]*", "", ptx).partition(".entry")[2].partition("\n{")
    body = re.sub(
        r"^\s*\.(?:loc|file|pragma)[^\n]*", "", body.split("$L__func_end0:")[0], flags=re.M
    )
    types, statements = {}, []
    for piece in body.split(";"):
        piece = " ".join(piece.split())
        while found := re.match(r"(?:[{}]|(\$?\w+:))\s*", piece):
            statements += [found.group(1)] if found.group(1) else []
            piece = piece[found.end() :]
        if declared := re.match(r"\.reg \.(\w+) (.*)", piece):
            for name in declared.group(2).split(", "):
                name, _, many = name.partition("<")
                numbers = range(int(many[:-1])) if many else [""]
                types |= {f"{name}{number}": declared.group(1) for number in numbers}
        elif piece:
            statements.append(piece)
    return statements, types, re.findall(r"\w+_param_\d+", head)


def _decode(text: str) -> _Instruction:
    negated, predicate, name, rest = re.match(r"(?:@(!?)(%\w+) +)?([\w.:]+) *(.*)", text).groups()
    operands = []
    for item in re.findall(r"\{[^}]*\}|\[[^\]]*\]|[^,\s]+", rest):
        inside = item[1:-1].replace(" ", "")
        if item[0] == "{":
            operands.append(inside.split(","))
        elif item[0] == "[":
            base, _, offset = inside.partition("+")
            operands.append(_Address(base, int(offset or "0")))
        else:
            operands.append(item)
    return _Instruction(predicate, bool(negated), name, operands, text)


def _blocks(statements: list[str]) -> tuple[list[list[_Instruction]], dict[str, int]]:
    """Instructions that run together, up to a branch, a barrier or a label; labels' blocks."""
    blocks, labels = [[]], {}
    for text in statements:
        if text.endswith(":"):
            if blocks[-1]:
                blocks.append([])
            labels[text[:-1]] = len(blocks) - 1
            continue
        instruction = _decode(text)
        blocks[-1].append(instruction)
        if instruction.name.split(".")[0] in ("bra", "ret") or instruction.name == "bar.sync":
            blocks.append([])
    return blocks, labels


def _narrowest(ptx: str, space: str) -> int:
    """Bytes of the narrowest access to a kind of memory."""
    widths = re.findall(rf"(?:ld|st|atom|red)\.{space}[\w.:]*\.[a-z](\d+)\s", ptx)
    return min([4, *(int(width) // 8 for width in widths)])  # matrices take 4


class _Machine:
    def __init__(self, compiled, grid, operands, outputs, scalars, rng) -> None:
        self.outputs, self.rng = outputs, rng
        threads, programs = compiled.num_warps * _WARP, int(np.prod(grid))
        index = np.arange(programs * threads)
        program, zeros = index // threads, np.zeros(len(index), np.int64)
        self.lane = index % _WARP
        self.who = Threads(program, index // _WARP, zeros, zeros.copy())
        special = {
            "tid": (index % threads, 0, 0),
            "ntid": (threads, 1, 1),
            "ctaid": np.unravel_index(program, grid, order="F"),
            "nctaid": grid,
        }
        statements, types, names = _parse(compiled.ptx)
        self.blocks, self.labels = _blocks(statements)
        self.registers = {name: np.zeros(len(index), _REGISTERS[t]) for name, t in types.items()}
        for name, values in special.items():
            for axis, value in zip("xyz", values, strict=True):
                everywhere = np.broadcast_to(np.asarray(value, np.uint32), len(index))
                self.registers[f"%{name}.{axis}"] = everywhere

        self.shared_bytes = compiled.shared_bytes
        self.shared_step = -(-self.shared_bytes // 16) * 16 + 16
        granule = _narrowest(compiled.ptx, "shared")
        self.shared = Memory(programs * self.shared_step, "shared memory", granule)
        for first in range(0, programs * self.shared_step, self.shared_step):
            self.shared.allocate(first, self.shared_bytes, defined=False, constant=False)
        pointers = self._lay_out(operands, _narrowest(compiled.ptx, "global"))
        numbers = [
            np.float32(value).view(np.uint32) if isinstance(value, float) else np.uint32(value)
            for value in scalars
        ]
        scratch = [np.uint64(0)] * 2  # Triton's, which JAX does not give
        self.parameters = dict(zip(names, [*pointers, *numbers, *scratch], strict=True))

    def _lay_out(self, operands: list, granule: int) -> list:
        """Places all arrays, each once; their addresses."""
        arrays = {id(array): array for array in (*operands, *self.outputs)}
        read, written = ({id(array) for array in group} for group in (operands, self.outputs))
        self.first, end = {}, _BASE
        for name, array in arrays.items():
            self.first[name] = end
            end += -(-(array.nbytes + _GAP) // 256) * 256
        self.memory = Memory(end, "global memory", granule)
        for name, array in arrays.items():
            first, size = self.first[name], array.nbytes
            self.memory.allocate(first, size, defined=name in read, constant=name not in written)
            self.memory.data[first : first + size] = array.reshape(-1).view(np.uint8)
        return [np.uint64(self.first[id(array)]) for array in (*operands, *self.outputs)]

    def run(self) -> None:
        self.block = np.zeros(len(self.lane), np.int64)  # where each thread is
        self.waiting = np.zeros(len(self.lane), bool)
        while np.any(alive := self.block < len(self.blocks)):
            ready = alive & ~self.waiting
            if not np.any(ready):  # all that are alive have come to their barrier
                self.who.barriers[alive] += 1
                self.waiting[:] = False
                continue
            block = self.block[ready].min()
            active = ready & (self.block == block)
            self.block[active] = block + 1
            for instruction in self.blocks[block]:
                self._execute(instruction, active)
        for array in self.outputs:
            first = self.first[id(array)]
            array.reshape(-1).view(np.uint8)[...] = self.memory.data[first : first + array.nbytes]

    def _execute(self, instruction: _Instruction, active: np.ndarray) -> None:
        predicate, negated, name, operands, text = instruction
        if predicate:
            active = active & (self.registers[predicate] ^ negated)
        family = name.split(".")[0]
        if family == "bra":
            self.block[active] = self.labels[operands[0]]
        elif family == "ret":
            self.block[active] = len(self.blocks)
        elif text == "bar.sync 0":
            self.waiting |= active
        elif name == "bar.warp.sync":
            self._require_whole_warps(active, text)
            self.who.warp_barriers[active] += 1
        elif name.startswith("ld.param"):
            self._put(operands[0], self.parameters[operands[1].base], active)
        elif family in ("ld", "st", "atom", "red"):
            self._access(name, operands, np.flatnonzero(active), text)
        elif family in ("ldmatrix", "stmatrix"):
            self._require_whole_warps(active, text)
            self._matrices(name, operands, np.flatnonzero(active), text)
        elif family in ptx_ops.WARP:
            self._require_whole_warps(active, text)
            sources = [self._get(operand, name.split(".")[-1]) for operand in operands[1:]]
            mask = -1 if family == "mma" else np.broadcast_to(sources[-1], active.shape)[active]
            if np.any(np.asarray(mask, np.int64) & 0xFFFFFFFF != 0xFFFFFFFF):
                raise NotImplementedError(f"{text}: not by the whole warp")
            self._put(operands[0], ptx_ops.WARP[family](name, self.lane, *sources), active)
        elif family == "mov" and list in map(type, operands):
            self._put(operands[0], self._repack(*operands), active)
        else:
            self._put(operands[0], ptx_ops.compute(name, operands[1:], self._get, text), active)

    def _require_whole_warps(self, active, text: str) -> None:
        warps = active.reshape(-1, _WARP)
        if np.any(warps.any(axis=1) != warps.all(axis=1)):
            raise Fault(f"{text}: the threads of a warp have parted")

    # --- registers -------------------------------------------------------------------------------

    def _get(self, operand, kind: str):
        """An operand as an array of a type (of PTX), or as a number of it."""
        if isinstance(operand, list):
            return [self._get(item, kind) for item in operand]
        dtype = np.dtype(ptx_ops.DTYPES[kind])
        if operand in self.registers:
            value = self.registers[operand]
            if value.dtype.itemsize != dtype.itemsize:
                value = value.astype(f"u{dtype.itemsize}")
            return value.view(dtype)
        if operand == "global_smem":  # where shared memory begins
            return np.uint32(0)
        if operand.startswith("0f"):
            return np.uint32(int(operand[2:], 16)).view(dtype)
        if kind == "pred":
            return np.bool_(int(operand))
        number = int(operand, 0) % (1 << 8 * dtype.itemsize)
        return np.array(number, f"u{dtype.itemsize}").view(dtype)[()]

    def _put(self, operand, value, active) -> None:
        if isinstance(operand, list):
            for item, part in zip(operand, value, strict=True):
                self._put(item, part, active)
        elif operand != "_":
            np.copyto(self.registers[operand], self._as_register(operand, value), where=active)

    def _as_register(self, name: str, value) -> np.ndarray:
        """A value as a register holds it: its bits, zeros above those of a narrower one."""
        value, dtype = np.asarray(value), self.registers[name].dtype
        same_size = value.dtype.itemsize == dtype.itemsize
        return value.view(dtype) if same_size else value.astype(dtype)

    def _repack(self, target, source):
        """mov of one wide register to or from several narrow ones."""
        if isinstance(source, list):
            parts = np.stack([self.registers[name] for name in source], axis=1)
            return parts.view(self.registers[target].dtype)[:, 0]
        whole = self.registers[source]
        parts = whole.view(f"u{whole.dtype.itemsize // len(target)}").reshape(-1, len(target))
        return [np.ascontiguousarray(part) for part in parts.T]

    # --- memory ----------------------------------------------------------------------------------

    def _addresses(self, operand: _Address, thread, *, shared: bool, text: str) -> np.ndarray:
        base = self._get(operand.base, "b32" if shared else "b64")
        address = np.broadcast_to(base, len(self.lane))[thread].astype(np.int64) + operand.offset
        if not shared:
            return address
        if np.any((address < 0) | (address >= self.shared_bytes)):
            raise Fault(f"{text}: shared memory out of bounds")
        return address + self.who.program[thread] * self.shared_step

    def _load(self, names: list[str], values: list, thread) -> None:
        for name, value in zip(names, values, strict=True):
            self.registers[name][thread] = self._as_register(name, value)

    def _access(self, name: str, operands: list, thread, text: str) -> None:
        parts = name.replace("::cta", "").split(".")
        memory = self.shared if "shared" in parts else self.memory
        position = next(i for i, item in enumerate(operands) if isinstance(item, _Address))
        address = self._addresses(
            operands[position], thread, shared=memory is self.shared, text=text
        )
        width = int(parts[-1][1:]) // 8
        register = operands[1 if parts[0] == "st" else 0]
        registers = register if isinstance(register, list) else [register]
        if parts[0] == "ld":
            values = memory.read(address, width, len(registers), thread, self.who, text)
            self._load(registers, values, thread)
        elif parts[0] == "st":
            everywhere = [self._get(item, f"b{8 * width}") for item in registers]
            values = [np.broadcast_to(value, len(self.lane))[thread] for value in everywhere]
            memory.write(address, values, width, thread, self.who, text)
        elif parts[-2] == "add" and parts[-1] in ("u32", "u64"):
            value = np.broadcast_to(self._get(operands[position + 1], parts[-1]), len(self.lane))
            old = memory.add(address, value[thread], width, thread, self.who, text, self.rng)
            if parts[0] == "atom":
                self._load(registers, [old], thread)
        else:
            raise NotImplementedError(text)

    def _matrices(self, name: str, operands: list, thread, text: str) -> None:
        """Matrices of 8 rows of 16 bytes: thread 8 m + i of a warp says where row i of m lies."""
        if ".trans" in name or ".m8n8." not in name:
            raise NotImplementedError(text)
        loads = name.startswith("ld")
        names, target = operands if loads else operands[::-1]
        rows = self._addresses(target, thread, shared=True, text=text).reshape(-1, _WARP)
        for matrix, register in enumerate(names):
            row = rows[:, 8 * matrix : 8 * matrix + 8]
            if np.any(row % 16):
                raise Fault(f"{text}: shared memory misaligned for 16 bytes")
            # Thread t holds four bytes of row t // 4, from 4 (t % 4) on.
            address = (np.repeat(row, 4, axis=1) + np.tile(4 * np.arange(4), 8)).reshape(-1)
            if loads:
                values = self.shared.read(address, 4, 1, thread, self.who, text)
                self._load([register], values, thread)
            else:
                value = self.registers[register][thread]
                self.shared.write(address, [value], 4, thread, self.who, text)
