"""What is wrong with a run's folder is said at once; signals ask first."""

import json
import os
import pathlib
import signal
import time
import types

import jax.numpy as jnp
import pytest

from instant_gs import cli, output
from instant_gs.training import preemption, run_folder, writer


def test_two_processes_cannot_train_in_one_folder(tmp_path):
    me = rf"process {os.getpid()} on .* is training there"
    # The lock belongs to the open file, so one process can play both.
    with (
        run_folder.held(tmp_path / "run"),
        pytest.raises(cli.UserError, match=me),
        run_folder.held(tmp_path / "run"),
    ):
        pass
    with run_folder.held(tmp_path / "run"):  # free again, although the file is still there
        assert (tmp_path / "run" / run_folder.LOCK).is_file()


def test_a_folder_that_cannot_be_written_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    said = r"--workdir=.*file.run: cannot be written: Not a directory"
    with pytest.raises(cli.UserError, match=said), run_folder.held(tmp_path / "file" / "run"):
        pass


def test_a_refused_command_leaves_no_folder_and_removes_no_other(tmp_path):
    def refused(folder, *left):
        with pytest.raises(ValueError, match="refused"), run_folder.held(folder):
            (folder / "checkpoints").mkdir()
            for name in left:
                (folder / name).touch()
            raise ValueError("refused")

    refused(tmp_path / "runs" / "a")
    assert not list(tmp_path.iterdir())
    refused(tmp_path / "runs" / "a", "metrics.jsonl")
    assert (tmp_path / "runs" / "a" / "metrics.jsonl").is_file()
    refused(tmp_path / "runs" / "b")
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["a"]
    (tmp_path / "own").mkdir()
    refused(tmp_path / "own")
    assert (tmp_path / "own").is_dir()


def test_a_buckets_address_is_no_path():
    for check in (run_folder.check_place, lambda path: output.check_free(path, overwrite=False)):
        with pytest.raises(cli.UserError, match=r"gs:/b/run: expected a path, not an address"):
            check(pathlib.Path("gs://b/run"))


@pytest.mark.parametrize("name", ["manifest.json", "report.json", "params"])
def test_a_folder_of_something_else_is_left_alone(tmp_path, name):
    (tmp_path / name).touch()
    with pytest.raises(cli.UserError, match=f"holds .*{name}.*give a new folder"):
        run_folder.check_place(tmp_path)
    with pytest.raises(cli.UserError, match="new folder"), run_folder.held(tmp_path):
        pass
    assert [path.name for path in tmp_path.iterdir()] == [name]
    with pytest.raises(cli.UserError, match="is a file"):
        run_folder.check_place(tmp_path / name)


def test_too_little_room_is_said_with_its_numbers(tmp_path, monkeypatch):
    arrays = {"params": jnp.zeros(1_000_000), "moments": jnp.zeros(500_000)}  # 6 MB

    def free(count):
        monkeypatch.setattr(
            run_folder.shutil, "disk_usage", lambda _: types.SimpleNamespace(free=count)
        )

    free(24_000_000)
    run_folder.check_room(tmp_path, arrays, keep=3)
    free(23_900_000)
    with pytest.raises(cli.UserError, match=r"24\.0 MB \(up to 3 \+ 1 of 6\.0 MB.*23\.9 MB are fr"):
        run_folder.check_room(tmp_path, arrays, keep=3)
    (tmp_path / "checkpoints" / "1").mkdir(parents=True)  # what is there needs no more room
    run_folder.check_room(tmp_path, arrays, keep=3)


def test_the_first_signal_asks_and_the_second_interrupts():
    before = signal.getsignal(signal.SIGTERM)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in a shell's background
    for number in (signal.SIGTERM, signal.SIGINT):
        with preemption.StopRequest() as stop:
            assert stop.after(1) is None
            os.kill(os.getpid(), number)
            assert stop.after(1) == number.name
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(5)
        assert signal.getsignal(signal.SIGTERM) is before
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_metrics_of_steps_that_are_taken_again_stand_there_once(tmp_path):
    first = writer.MetricWriter(tmp_path)
    for step in (1, 2, 3):
        first.scalars(step, {"loss": step / 2})
    first.close()
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 4, "lo')  # killed while it was written
    again = writer.MetricWriter(tmp_path, step=2)
    again.scalars(3, {"loss": 7.0})
    again.close()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3] and lines[2]["loss"] == 7.0
