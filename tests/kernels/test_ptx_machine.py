"""The machine that runs compiled kernels: it computes, and it finds what it is there to find."""

import numpy as np
import pytest

from kernels import triton_compile
from tests.kernels import ptx_machine, ptx_memory

# A thread's number in its program, its program's, and its own element of operand and output.
_HEAD = """
.visible .entry k(
  .param .u64 k_param_0, .param .u64 k_param_1, .param .u64 k_param_2, .param .u64 k_param_3
)
.reqntid 64
{
  .reg .pred %p<4>;
  .reg .b32 %r<8>;
  .reg .b64 %rd<8>;
  ld.param.b64 %rd0, [k_param_0];
  ld.param.b64 %rd1, [k_param_1];
  mov.u32 %r0, %tid.x;
  mov.u32 %r1, %ctaid.x;
  mad.lo.s32 %r2, %r1, 64, %r0;
  mad.wide.u32 %rd2, %r2, 4, %rd0;
  mad.wide.u32 %rd3, %r2, 4, %rd1;
"""
_LOAD, _STORE = "ld.global.b32 %r3, [%rd2];", "st.global.b32 [%rd3], %r3;"


def _run(body: str, *, programs: int = 2, operand=None, output=None) -> np.ndarray:
    """Output of two warps a program that do `body`; operand 0, 1, 2, ... if not given."""
    operand = np.arange(64 * programs, dtype=np.uint32) if operand is None else operand
    output = np.zeros_like(operand) if output is None else output
    compiled = triton_compile.Compiled(
        name="k", ptx=f"{_HEAD}{body}\n  ret;\n$L__func_end0:\n}}", cubin=b"",
        shared_bytes=256, num_warps=2, capability=90,
    )  # fmt: skip
    rng = np.random.default_rng(0)
    ptx_machine.run(compiled, (programs, 1, 1), [operand], [output], [], rng)
    return output


def test_threads_compute():
    body = f"{_LOAD} mul.lo.s32 %r3, %r3, 3; @%p0 add.s32 %r3, %r3, 1; {_STORE}"
    assert np.array_equal(
        _run("setp.lt.s32 %p0, %r0, 5; " + body)[[4, 5, 68, 69]], [13, 15, 205, 207]
    )


def test_bytes_change_places():
    """The last two swapped behind zeros; signs of bytes, and one of the other number."""
    operand = np.full(64, 0x11228344, np.uint32)
    swapped, signed = (
        _run(
            f"{_LOAD} prmt.b32 %r3, %r3, {other}, {selector}U; {_STORE}",
            programs=1,
            operand=operand,
        )
        for other, selector in ((0, "0x7701"), (0xAABBCCDD, "0x98F4"))
    )
    assert set(swapped) == {0x00004483} and set(signed) == {0xFF00FFDD}


def test_parted_threads_meet_again():
    body = f"""
  {_LOAD} and.b32 %r4, %r0, 1; setp.eq.b32 %p0, %r4, 0;
  @%p0 bra $L__BB0_1;
  add.s32 %r3, %r3, 1000;
$L__BB0_1:
  shfl.sync.bfly.b32 %r3, %r3, 1, 31, -1;
  {_STORE}"""
    assert np.array_equal(_run(body)[:4], [1001, 0, 1003, 2])


def test_a_loop_runs_as_often_as_each_thread_says():
    body = f"""
  mov.b32 %r3, 0;
$L__BB0_1:
  add.s32 %r3, %r3, 2; setp.lt.s32 %p0, %r3, %r0;
  @%p0 bra $L__BB0_1;
  {_STORE}"""
    assert np.array_equal(_run(body)[:6], [2, 2, 2, 4, 4, 6])


_OWN, _OTHER = "shl.b32 %r4, %r0, 2; ", "xor.b32 %r5, %r4, {}; "
_EXCHANGE = (
    _LOAD + _OWN + _OTHER + "st.shared.b32 [%r4], %r3; {} ld.shared.b32 %r3, [%r5]; " + _STORE
)


def test_threads_exchange_numbers_across_a_barrier():
    numbers = np.arange(64)
    assert np.array_equal(_run(_EXCHANGE.format(128, "bar.sync 0;"))[:64], numbers ^ 32)
    assert np.array_equal(_run(_EXCHANGE.format(4, "bar.warp.sync -1;"))[:64], numbers ^ 1)


@pytest.mark.parametrize(("apart", "barrier"), [(128, ""), (4, ""), (128, "bar.warp.sync -1;")])
def test_an_exchange_without_the_barrier_is_a_race(apart, barrier):
    with pytest.raises(ptx_memory.Fault, match="race: reads what another thread writes"):
        _run(_EXCHANGE.format(apart, barrier))


_RED = "cvt.u64.u32 %rd5, %r0; red.global.gpu.relaxed.add.u64 [%rd1], %rd5;"
_ATOM = "mov.b64 %rd5, 1; atom.global.gpu.relaxed.add.u64 %rd6, [%rd1], %rd5;"


def test_atomic_additions_are_no_race_and_each_has_its_place():
    counts = np.array([5], np.uint64)
    assert _run(_RED, operand=counts, output=counts) == 5 + 2 * 64 * 63 // 2
    counts = np.zeros(1 + 128, np.uint64)
    body = (
        _ATOM + "add.s32 %r4, %r2, 1; mad.wide.u32 %rd3, %r4, 8, %rd1; st.global.b64 [%rd3], %rd6;"
    )
    places = _run(body, operand=counts, output=counts)[1:]
    assert np.array_equal(np.sort(places), np.arange(128))
    assert not np.array_equal(places, np.arange(128)), "their order is not defined"
    with pytest.raises(ptx_memory.Fault, match="race"):
        _run(_RED + "ld.global.b64 %rd6, [%rd1];", operand=counts, output=counts)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("st.global.b32 [%rd1], %r1;", "race: "),  # two programs, one place
        ("st.global.b32 [%rd1], %r0;", "race: threads store several numbers at once"),
        ("st.global.b32 [%rd3], %r0; xor.b32 %r4, %r2, 1; mad.wide.u32 %rd4, %r4, 4, %rd1; "
         "ld.global.b32 %r3, [%rd4];", "race: reads what another thread writes"),
        ("ld.global.b32 %r3, [%rd2+256];", "out of bounds"),
        ("ld.global.b32 %r3, [%rd0+-4];", "out of bounds"),
        ("ld.global.v2.b32 {%r3, %r4}, [%rd2];", "misaligned for 8 bytes"),
        ("ld.global.b32 %r3, [%rd3];", "before anything was written"),
        ("st.global.b32 [%rd2], %r0;", "operand written"),
        ("mov.b32 %r4, 256; ld.shared.b32 %r3, [%r4];", "shared memory out of bounds"),
        ("ld.shared.b32 %r3, [global_smem];", "shared memory read before anything"),
        ("setp.lt.s32 %p0, %r0, 5; @%p0 bra $L__BB0_1; bar.warp.sync -1;\n$L__BB0_1:\n", "parted"),
    ],
)  # fmt: skip
def test_what_a_gpu_does_not_define_is_found(body, message):
    with pytest.raises(ptx_memory.Fault, match=message):
        _run(body)


def test_several_threads_may_store_the_same():
    assert _run("mov.b32 %r3, 7; st.global.b32 [%rd1], %r3;")[0] == 7


@pytest.mark.parametrize(
    "body", ["lop3.b32 %r3, %r0, %r1, %r2, 5;", "cvt.rn.f16.f32 %r3, %r0;", "bar.sync 1;"]
)
def test_what_it_does_not_know_it_refuses(body):
    with pytest.raises(NotImplementedError):
        _run(body)
