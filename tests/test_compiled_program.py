"""The record of compiled programs says what is in a program, and is of today's kernels."""

import json

from benchmarks import compiled_program, provenance, table

HLO = """HloModule jit_both
%compare (a: u32[], b: u32[]) -> pred[] {
  ROOT %lt = pred[] compare(%a, %b), direction=LT
}

ENTRY %main (x: f32[8]) -> f32[8] {
  %x = f32[8]{0} parameter(0)
  %k = f32[8]{0} custom-call(%x), custom_call_target="triton_kernel_call_ffi"
  %s = (u32[8]{0}, s32[8]{0}) custom-call(%k), custom_call_target="xla.gpu.ext.cub_sort_pairs"
  %t = (u32[8]{0}, s32[8]{0}) sort(%k, %x), dimensions={0}, to_apply=%compare
  %f = f32[8]{0} fusion(%s), kind=kLoop, calls=%fused
  %c = f32[8]{0} copy(%f)
  %g = f32[16]{0} all-gather(%c), dimensions={0}
  ROOT %w = f32[8]{0} while(%g), condition=%more, body=%step
}
"""
SEQUENCE = """000: kCommandBuffer [source | sink]
    001: kCustomCall [source | next=002 (1)] kCustomCall
002: kCopy [source | sink]
"""


def test_programs_are_read():
    assert compiled_program.count(HLO) == {
        "triton": 1,
        "radix_sorts": 1,
        "other_sorts": 1,
        "fusions": 1,
        "copies": 1,
        "collectives": 1,
        "host": 0,
        "loops": 1,
    }
    assert compiled_program.outside(SEQUENCE) == (1, 1)


def test_the_record_is_of_these_sources_and_shows_what_is_claimed():
    record = json.loads(table.PROGRAM.read_text(encoding="utf-8"))
    assert record["sources_sha256"] == provenance.triton_hash(), (
        "the Triton sources changed: see benchmarks/compiled_program.py"
    )
    assert len(record["programs"]) == len(compiled_program.PROGRAMS)
    for entry in record["programs"]:
        for absent in ("other_sorts", "copies", "collectives", "host", "loops", "launches_outside"):
            assert entry[absent] == 0, f"{entry['program']}: {absent}"
        assert entry["command_buffers"] == 1 and entry["radix_sorts"] == 1
