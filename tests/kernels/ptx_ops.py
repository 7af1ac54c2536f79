"""Arithmetic of `ptx_machine`: what an instruction computes, for all threads at once.

Approximate instructions are computed exactly and `.ftz` does not flush, so that results differ from
a GPU's in the last bits.
"""

import re

import numpy as np

DTYPES = {"pred": np.bool_, "f32": np.float32, "tf32": np.uint32}
for _bits in (8, 16, 32, 64):
    for _kind, _letter in (("b", "u"), ("u", "u"), ("s", "i")):
        DTYPES[f"{_kind}{_bits}"] = np.dtype(f"{_letter}{_bits // 8}").type


def _fma(a, b, c):
    """Rounded once (but for ties of the double that holds it in between)."""
    return np.asarray(np.multiply(a, b, dtype=np.float64) + c).astype(np.float32)


def _shift(a, amount, kind: str, *, left: bool):
    """Shifts by a type's width or more leave nothing, or the sign."""
    bits = int(kind[1:])
    amount = np.asarray(amount, np.int64)
    possible = np.minimum(amount, bits - 1).astype(DTYPES[kind])
    shifted = np.left_shift(a, possible) if left else np.right_shift(a, possible)
    if kind[0] == "s" and not left:
        return shifted
    return np.where(amount >= bits, DTYPES[kind](0), shifted)


def _divide(a, b):
    """Quotient towards zero and remainder; by zero, as idle threads may do, anything."""
    a, b = np.asarray(a, np.int64), np.asarray(b, np.int64)
    b = np.where(b == 0, 1, b)
    quotient = np.sign(a) * np.sign(b) * (np.abs(a) // np.abs(b))
    return quotient, a - quotient * b


def _field(a, first, count, kind: str):
    """bfe of constants."""
    field = (np.asarray(a, np.int64) >> first) & ((1 << int(count)) - 1)
    if kind[0] == "s":
        field = np.where(field >> (count - 1) == 1, field - (1 << int(count)), field)
    return field.astype(DTYPES[kind])


def _population(a):
    bits = np.unpackbits(np.ascontiguousarray(a)[:, None].view(np.uint8), axis=1)
    return bits.sum(axis=1, dtype=np.uint32)


def _is_nan(a, b):
    return np.isnan(a) | np.isnan(b)


_COMPARE = {
    "eq": np.equal, "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal,
    "ne": np.not_equal,  # of floats: false where one is no number, see `compute`
    "equ": lambda a, b: (a == b) | _is_nan(a, b), "neu": np.not_equal,
    "ltu": lambda a, b: ~(a >= b), "leu": lambda a, b: ~(a > b),
    "gtu": lambda a, b: ~(a <= b), "geu": lambda a, b: ~(a < b),
    "num": lambda a, b: ~_is_nan(a, b), "nan": _is_nan,
}  # fmt: skip
_PLAIN = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide, "fma": _fma,
    "and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor, "not": np.invert,
    "neg": np.negative, "abs": np.abs, "mov": lambda a: a,
    "ex2": np.exp2, "lg2": np.log2, "sqrt": np.sqrt,
    "rcp": lambda a: np.float32(1) / a, "rsqrt": lambda a: np.float32(1) / np.sqrt(a),
}  # fmt: skip
_ROUND = {"rmi": np.floor, "rpi": np.ceil, "rzi": np.trunc, "rni": np.rint}


def _convert(parts: list[str], a, where: str):
    """cvt; the target type and the source type are the name's last parts."""
    target, source = parts[-2:]
    rounding = next((_ROUND[part] for part in parts if part in _ROUND), None)
    if target == "tf32" and "rna" in parts:  # 13 bits go: the nearest, ties away from zero
        return (a.view(np.uint32) + np.uint32(0x1000)) & np.uint32(0xFFFFE000)
    if source == "f32" and rounding is not None:
        if target == "f32":
            return rounding(a)
        limits = np.iinfo(DTYPES[target])
        whole = np.nan_to_num(rounding(a).astype(np.float64), nan=0.0)
        return np.clip(whole, limits.min, limits.max).astype(DTYPES[target])
    if source == "f32" or (target == "f32" and "rn" not in parts):
        raise NotImplementedError(where)
    return np.asarray(a).astype(DTYPES[target])


def _permute(low, high, selector):
    """prmt: each byte is one of eight, or the sign of one, by four bits of the selector."""
    eight = np.asarray(low, np.uint64) | np.asarray(high, np.uint64) << np.uint64(32)
    result = np.zeros_like(eight)
    for byte in range(4):
        chosen = np.asarray(selector, np.uint64) >> np.uint64(4 * byte) & np.uint64(0xF)
        value = eight >> np.uint64(8) * (chosen & np.uint64(7)) & np.uint64(0xFF)
        value = np.where(chosen & np.uint64(8), (value >> np.uint64(7)) * np.uint64(0xFF), value)
        result |= value << np.uint64(8 * byte)
    return result.astype(np.uint32)


def compute(name: str, operands: list, get, where: str):
    """Result of an instruction.

    Args:
        name: Such as `add.s32`.
        operands: Texts.
        get: (operand, type of PTX) -> array or number of that type.
        where: The instruction, for messages.

    Raises:
        NotImplementedError: It is not known here.
    """
    parts = name.split(".")
    family, kind = parts[0], parts[-1]
    with np.errstate(all="ignore"):
        if kind == "f32x2":  # two numbers in one register
            pairs = [np.asarray(get(operand, "b64")).view(np.float32) for operand in operands]
            return _PLAIN[family](*pairs).view(np.uint64)
        if family == "selp":
            a, b = get(operands[0], kind), get(operands[1], kind)
            return np.where(get(operands[2], "pred"), a, b)
        if family in ("shl", "shr"):
            a, amount = get(operands[0], kind), get(operands[1], "u32")
            return _shift(a, amount, kind, left=family == "shl")
        if family == "bfe":
            return _field(*[get(operand, "u32") for operand in operands], kind)
        if family == "prmt" and kind == "b32":
            return _permute(*[get(operand.removesuffix("U"), "u32") for operand in operands])
        values = [get(operand, kind) for operand in operands[:2]]
        if family == "cvt":
            return _convert(parts, values[0], where)
        if family == "setp" and len(operands) == 2:
            result = _COMPARE[parts[1]](*values)
            return result & ~_is_nan(*values) if (parts[1], kind) == ("ne", "f32") else result
        if family in ("min", "max") and "NaN" not in parts:  # of a number and none: the number
            return (np.fmin if family == "min" else np.fmax)(*values)
        if family in ("mul", "mad") and kind != "f32":
            if "wide" in parts:
                kind = f"{kind[0]}{2 * int(kind[1:])}"
                values = [np.asarray(value).astype(DTYPES[kind]) for value in values]
            elif "lo" not in parts:
                raise NotImplementedError(where)
            product = np.multiply(*values)
            return product if family == "mul" else product + get(operands[2], kind)
        if family in ("div", "rem") and kind != "f32":
            return _divide(*values)[family == "rem"].astype(DTYPES[kind])
        if family == "popc":
            return _population(values[0])
        if family not in _PLAIN:
            raise NotImplementedError(where)
        return _PLAIN[family](*[get(operand, kind) for operand in operands])


# --- among the threads of a warp -----------------------------------------------------------------


def _shuffle(name: str, lane, value, b, c, _mask):
    """shfl, as the PTX manual spells it out."""
    b, c = np.asarray(b, np.int64), np.asarray(c, np.int64)
    segment, clamp = (c >> 8) & 0x1F, c & 0x1F
    least = lane & segment
    most = least | (clamp & ~segment)
    way = re.search(r"bfly|idx|up|down", name).group()
    source = {
        "bfly": lane ^ b, "idx": least | (b & ~segment), "up": lane - b, "down": lane + b,
    }[way]  # fmt: skip
    inside = source >= most if way == "up" else source <= most
    source = np.where(inside, source, lane)
    return np.broadcast_to(value, lane.shape)[np.arange(len(lane)) - lane + source]


def _reduce(name: str, lane, value, _mask):
    value = np.broadcast_to(value, lane.shape).reshape(-1, 32)
    operation = {"add": np.add, "max": np.maximum, "min": np.minimum}[name.split(".")[2]]
    return np.repeat(operation.reduce(value, axis=1, dtype=value.dtype), 32)


def _multiply(name: str, lane, a, b, c):
    """mma.m16n8k8 of TF32, D = A B + C: each spread over a warp's registers as the manual says."""
    if ".m16n8k8.row.col.f32.tf32.tf32.f32" not in name:
        raise NotImplementedError(name)
    group, within = np.arange(32) // 4, np.arange(32) % 4
    warps = len(lane) // 32

    def tf32(register):
        bits = np.broadcast_to(register, lane.shape).view(np.uint32) & np.uint32(0xFFFFE000)
        return bits.view(np.float32).reshape(warps, 32).astype(np.float64)

    left, right = np.zeros((warps, 16, 8)), np.zeros((warps, 8, 8))
    for index, register in enumerate(a):
        left[:, group + 8 * (index % 2), within + 4 * (index // 2)] = tf32(register)
    for index, register in enumerate(b):
        right[:, within + 4 * index, group] = tf32(register)
    product = left @ right
    results = []
    for index, register in enumerate(c):
        part = product[:, group + 8 * (index // 2), 2 * within + index % 2].reshape(-1)
        results.append((part + register).astype(np.float32))
    return results


WARP = {"shfl": _shuffle, "redux": _reduce, "mma": _multiply}
