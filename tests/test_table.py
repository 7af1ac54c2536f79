"""The tables of README.md and the docs are what the committed result files say."""

import json
import subprocess

import pytest
from absl import flags

from benchmarks import collect, kernel_tables, provenance, table
from instant_gs import cli
from tests import own_flags

TEXT = "a\n<!-- table: summary -->\n<!-- end of table: summary -->\nb\n"


def result(**changes):
    """A result file with one case, 180 and 500 microseconds, gsplat at 300 and 700."""
    case = {
        "case": {"splats": 200_000, "size": 512, "cameras": 1, "channels": 3},
        "ours": {
            "forward_us": 180.0,
            "forward_backward_us": 500.0,
            "forward_backward_deterministic_us": 510.0,
            "memory_bytes": 3e8,
            "kernels_us": {
                "blend_kernel": 70.0,
                "void cub::DeviceRadixSortOnesweepKernel<unsigned short>": 20.0,
                "void cub::DeviceRadixSortOnesweepKernel<unsigned short, int>": 5.0,
            },
            "stages_us": {"project": 10.0, "limits": 2.0, "bins": 4.0, "tile sort": 12.0},
        },
        "gsplat": {
            "version": "1.5.3",
            "forward_us": 300.0,
            "forward_kernels_us": 150.0,
            "forward_backward_us": 700.0,
        },
    }
    record = {
        "kind": collect.KIND,
        "date": "2026-01-02T03:04:05+00:00",
        "device": "Test GPU",
        "interpreted": False,
        "commit": "0123456789",
        "triton_sources_sha256": provenance.triton_hash(),
        "versions": {"jax": "1.2.3"},
        "parity": {"bound": 1e-4, "cases": [{"pass": True, "worst": 2e-6}]},
        "copy_gb_per_s": 2950.0,
        "bench": [case],
    }
    return record | changes


def write(folder, name, record):
    (folder / name).write_text(json.dumps(record))


def test_committed_tables_are_the_generated_ones():
    assert not table.stale(), "run: python -m benchmarks.table"


def test_every_block_is_in_a_document():
    texts = "".join(path.read_text("utf-8") for path in table.DOCUMENTS)
    for name in table.blocks([], {}):
        assert f"<!-- table: {name} -->" in texts, f"nobody shows the table {name}"


def test_numbers_come_from_the_files(tmp_path):
    write(tmp_path, "test-gpu.json", result())
    line = {
        "case": "target_200k",
        "platform": "cpu",
        "direction": "forward",
        "median_ms": 812.0,
        "cores": 2,
        "commit": "fedcba987",
        "peak_bytes": 1e9,
        "images": 1,
        "splats": 200_000,
        "height": 512,
        "width": 512,
        "jax": "0.10",
    }
    backward = line | {"direction": "forward_backward", "median_ms": 3000.0}
    other = line | {"platform": "gpu", "median_ms": 1.0}  # its place is in the JSON files
    lines = [line, backward, line | {"case": "tiny"}, other]
    lines = [json.dumps(line) for line in lines]
    (tmp_path / "cpu.jsonl").write_text("\n".join(lines) + "\n")
    results, cpu = table.read_results(tmp_path), table.read_cpu(tmp_path)
    text = table.rewrite(TEXT, table.blocks(results, cpu))
    assert "| `xla`, 2 CPU cores, commit fedcba9 | 812.0 ms | 3000.0 ms | 1000 MB," in text
    assert "| `triton`, Test GPU, commit 0123456 | 180 µs | 500 µs | 300 MB, XLA's plan |" in text
    assert "| 300 µs, its kernels alone 150 µs | 700 µs |" in text
    assert "gsplat 1.5.3" in text and text.startswith("a\n") and text.endswith("\nb\n")
    growth = kernel_tables.growth(cpu)
    assert growth.startswith("2 CPU cores, JAX 0.10, commit fedcba9.\n\n| case |")
    assert "| `target_200k` | 1 x 200,000 | 512 x 512 | 812.0 ms | 3000.0 ms | 1000 MB," in growth
    assert "| `tiny` | 1 x 200,000 | 512 x 512 | 812.0 ms | not measured | not measured |" in growth
    speed = kernel_tables.speed(results)
    assert "| 1 | 3 | 180 µs | 1.67x | 0.83x | 500 µs | 1.40x | not measured |" in speed
    assert "180 µs, 1.67x: reached" in speed and "500 µs, 1.40x: missed" in speed
    del results[0]["bench"][0]["gsplat"]
    assert "180 µs, not measured: not compared" in kernel_tables.speed(results)
    assert "a large copy moves 2.95 TB/s" in speed
    assert "1.02x: reached" in speed and "jax 1.2.3" in speed
    stages = kernel_tables.stages(results)
    assert "| order by depth and tile | 9 µs | 18 µs | 2.0x |" in stages
    assert "| gather | no estimate | not measured | no estimate |" in stages
    profile = kernel_tables.profile(results)
    assert "| CUB's radix sort, 16 bits, passes | 25.0 µs |" in profile
    assert "| `blend_kernel` | 70.0 µs |" in profile and "| 95 µs |" in profile


def test_verdicts_and_age():
    record = result()
    slow = record["bench"][0]
    slow["ours"]["forward_us"] = 201.0
    del slow["gsplat"]
    text = kernel_tables.speed([record])
    assert "201 µs, not measured: missed" in text and "500 µs, not measured: not compared" in text
    assert "changed since" not in text
    assert "changed since" in kernel_tables.speed([result(triton_sources_sha256="other")])


def test_misses_are_said():
    record = result(parity={"bound": 1e-4, "cases": [{"pass": True, "worst": 2e-6}] * 2})
    assert "parity: 2 of 2 scenes pass" in kernel_tables.speed([record])
    record["parity"]["cases"].append({"pass": False, "worst": 3e-2})
    record["bench"][0]["ours"]["forward_backward_deterministic_us"] = 800.0
    text = kernel_tables.speed([record])
    assert "parity: 2 of 3 scenes pass, worst relative L2 3.0e-02" in text
    assert "at most 1.5x the time: 1.60x: missed" in text


def test_the_most_that_a_kernel_takes_is_shown():
    kernel = {"kernel": "blend", "variant": "D = 3", "registers": 40, "spill_bytes": 0}
    entries = [
        kernel | {"capability": 90, "shared_bytes": 2048},
        kernel | {"capability": 80, "shared_bytes": 4096, "spill_bytes": 8, "registers": 50},
    ]
    text = kernel_tables.compiled({"triton": "3", "kernels": entries})
    assert "| `blend` | D = 3 | 50 | 40 | 4096 | 8 |" in text and "| sm_80 | sm_90 |" in text


def test_triton_sources_are_those_of_both_folders(tmp_path, monkeypatch):
    """Else a kernel that changed would not be noticed."""
    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    (tmp_path / "kernels" / "rasterize").mkdir(parents=True)
    seen = {provenance.triton_hash()}
    for name in ("triton_call.py", "rasterize/triton_fwd.py", "rasterize/triton_tuned.json"):
        for content in ("1", "2"):
            (tmp_path / "kernels" / name).write_text(content)
            seen.add(provenance.triton_hash())
    assert len(seen) == 7
    (tmp_path / "kernels" / "rasterize" / "xla.py").write_text("1")
    assert provenance.triton_hash() in seen


def test_names_of_devices_become_names_of_files():
    assert provenance.file_name("NVIDIA H100 (80GB)") == "nvidia-h100-80gb"


def test_a_driver_that_does_not_answer_is_none(monkeypatch):
    answers = iter([(0, "580.1\n580.1\n"), (9, "no devices\n"), (0, "")])

    def ask(command, **_):
        status, text = next(answers)
        return subprocess.CompletedProcess(command, status, text)

    monkeypatch.setattr(provenance.subprocess, "run", ask)
    assert [provenance._driver() for _ in range(3)] == ["580.1", None, None]


def test_check_fails_where_a_table_is_stale_and_writes_nothing(tmp_path, monkeypatch, capsys):
    document = tmp_path / "README.md"
    document.write_text("old")
    stale = {document: "new"}
    monkeypatch.setattr(table, "stale", lambda: stale)
    with own_flags.alone():
        table.define_flags()
        flags.FLAGS(["table", "--check"])
        with pytest.raises(cli.UserError, match=r"README\.md: tables are not those"):
            table.main([])
        assert document.read_text() == "old"
        flags.FLAGS(["table", "--nocheck"])
        table.main([])
        assert document.read_text() == "new" and "wrote README.md" in capsys.readouterr().out
        stale.clear()
        flags.FLAGS(["table", "--check"])
        table.main([])
    assert "nothing to change" in capsys.readouterr().out


def test_rehearsals_and_older_results_do_not_count(tmp_path):
    write(tmp_path, "a.json", result(interpreted=True))
    assert table.read_results(tmp_path) == []
    write(tmp_path, "b.json", result(date="2026-05-01"))
    write(tmp_path, "c.json", result(date="2026-04-01"))
    assert [record["date"] for record in table.read_results(tmp_path)] == ["2026-05-01"]


def test_a_block_that_does_not_exist_is_named():
    with pytest.raises(cli.UserError, match="seconds"):
        table.rewrite(TEXT.replace("summary", "seconds"), table.blocks([], {}))


def part(**changes):
    """parity.json or bench.json as they begin."""
    record = {
        "date": "2026-01-02",
        "device": "Test GPU",
        "driver": "580",
        "interpreted": False,
        "versions": {"jax": "1.2.3"},
        "commit": "abc",
        "kernels_sha256": "1",
        "triton_sources_sha256": "2",
        "bound": 1e-4,
        "cases": [],
    }
    return record | changes


def test_collecting_joins_what_a_visit_left(tmp_path):
    write(tmp_path, "parity.json", part())
    write(tmp_path, "bench.json", part(cases=result()["bench"], copy_gb_per_s=2950.0))
    write(tmp_path, "parity_rest.json", part(cases=[{"pass": True}]))
    ours = {"forward_us": 150.0, "launches": {"kernels": 2, "graphs": 3}}
    write(tmp_path, "graphs.json", part(xla_flags="--x", cases=[{"ours": ours}]))
    write(tmp_path, "gpu-test.json", {"tests": {"passed": 7}})
    (tmp_path / "sanitizer.txt").write_text("memcheck: exit 0\n")
    record = collect.collect(tmp_path)
    assert record["gpu_tests"]["passed"] == 7 and record["sanitizer"] == "memcheck: exit 0"
    assert record["parity"]["cases"] == [{"pass": True}]
    assert record["graphs"] == {"xla_flags": "--x", **ours}
    assert (
        record["copy_gb_per_s"] == 2950.0
        and record["commit"] == "abc"
        and record["tuned"] == collect.NOT_RUN
    )
    provenance.write(tmp_path / "results" / "test-gpu.json", record)
    assert table.read_results(tmp_path / "results") == [record]


def test_collecting_refuses_parts_of_different_sources(tmp_path):
    with pytest.raises(cli.UserError, match=r"neither parity\.json nor bench\.json"):
        collect.collect(tmp_path)
    write(tmp_path, "parity.json", part())
    for changes in ({"kernels_sha256": "other"}, {"driver": "570"}, {"versions": {"jax": "1.2.4"}}):
        write(tmp_path, "bench.json", part(**changes))
        with pytest.raises(cli.UserError, match="other sources"):
            collect.collect(tmp_path)


@pytest.mark.parametrize("interpreted", [False, True])
def test_a_joined_rehearsal_has_no_name_of_a_device(interpreted, tmp_path):
    write(tmp_path, "parity.json", part(interpreted=interpreted, cases=[{"pass": 1, "worst": 0.0}]))
    with own_flags.alone():
        collect.define_flags()
        flags.FLAGS(["collect", f"--folder={tmp_path}"])
        collect.main([])
    name = "rehearsal" if interpreted else "test-gpu"
    assert {path.stem for path in tmp_path.iterdir()} == {"parity", name}
