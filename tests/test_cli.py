"""Wrong input to any command costs one clear line and an exit code; a bug keeps its traceback."""

import errno
import textwrap
from pathlib import Path

import pytest

from instant_gs import cli, output
from instant_gs.data import error as data_error
from tests import own_process

ROOT = Path(__file__).resolve().parent.parent


def run_script(tmp_path, body, *arguments, **variables):
    """Runs a small command line whose main() has the given body."""
    script = tmp_path / "tool.py"
    script.write_text(
        textwrap.dedent(
            """
            import errno
            from absl import flags
            from instant_gs import cli
            _STEPS = flags.DEFINE_integer("steps", 1, "Steps.")
            _NEEDED = flags.DEFINE_string("needed", None, "Needed.")
            def main(argv):
            {body}
            if __name__ == "__main__":
                flags.mark_flag_as_required("needed")
                cli.run(main)
            """
        ).replace("{body}", textwrap.indent(textwrap.dedent(body), "    "))
    )
    return own_process.run(script, *arguments, PYTHONPATH=str(ROOT), **variables)


def error_line(result):
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1, f"expected one line on stderr, got:\n{result.stderr}"
    return lines[0]


def raised(function, *arguments):
    try:
        function(*arguments)
    except Exception as error:
        return error
    raise AssertionError("expected an error")


def test_success_is_exit_code_zero(tmp_path):
    result = run_script(tmp_path, "print(_STEPS.value)", "--needed=x", "--steps=3")
    assert result.returncode == 0, result.stderr
    assert result.stdout == "3\n"


def test_termination_leaves_no_unfinished_file(tmp_path):
    body = """
        import os, signal
        from instant_gs import output
        with output.whole_file("{}/out.txt") as path:
            path.write_text("half")
            os.kill(os.getpid(), signal.SIGTERM)
            print("goes on")
        """
    result = run_script(tmp_path, body.replace("{}", str(tmp_path)), "--needed=x")
    assert (result.returncode, result.stdout) == (143, "")
    assert [path.name for path in tmp_path.iterdir()] == ["tool.py"]


def test_a_write_that_fails_leaves_nothing(tmp_path):
    path = tmp_path / "file.json"
    path.write_text("old")
    with pytest.raises(RuntimeError), output.replacing(path) as partial:
        partial.write_text("half")
        raise RuntimeError
    assert [item.name for item in tmp_path.iterdir()] == ["file.json"]
    assert path.read_text() == "old"


def test_an_unfinished_file_keeps_its_suffix_and_gets_the_usual_permissions(tmp_path):
    path, left = tmp_path / "motion.npz", tmp_path / ".old.0123abcd.partial.json"
    left.touch()
    with output.replacing(path) as partial:
        assert (partial.parent, partial.suffix) == (tmp_path, ".npz")
        assert output.is_partial(partial) and not output.is_partial(path)
        (tmp_path / "usual").touch()
    assert path.stat().st_mode == (tmp_path / "usual").stat().st_mode
    output.remove_partials(tmp_path)
    assert sorted(item.name for item in tmp_path.iterdir()) == ["motion.npz", "usual"]


def test_a_link_to_nothing_is_not_replaced_unasked(tmp_path):
    link = tmp_path / "out.txt"
    link.symlink_to("nowhere")
    with pytest.raises(cli.UserError, match=f"^{link} exists already; choose another path"):
        output.check_free(link, overwrite=False)
    with output.whole_file(link, overwrite=True) as path:
        path.write_text("whole")
    assert link.read_text() == "whole" and not link.is_symlink()


def test_a_file_is_not_replaced_unasked(tmp_path):
    file = tmp_path / "notes.txt"
    file.write_text("mine")
    with pytest.raises(cli.UserError, match="exists already"), output.whole_file(file) as path:
        path.write_text("unasked")
    assert file.read_text() == "mine"


def test_a_folder_is_no_path_of_a_file(tmp_path):
    with pytest.raises(cli.UserError, match="is a folder; give the path of a file"):
        output.check_free(tmp_path, overwrite=True)


def test_a_config_that_is_no_python_is_one_line(tmp_path):
    (tmp_path / "notes.py").write_text("This is a letter.")
    result = own_process.run("train.py", f"--config={tmp_path}/notes.py", "--workdir=x")
    assert result.returncode == cli.EXIT_USAGE
    assert "notes.py, line 1: invalid syntax; give a Python file" in error_line(result)


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        (
            "--config.train.steps=-1",  # said before that there is no such pack
            "invalid configuration: train.steps: expected a positive number",
        ),
        ("--profile_steps=abc", "--profile_steps=abc: expected the numbers of the first"),
        (
            "--config.data.packs=b",
            "--config.data.packs: given 2 times, which would join the values; give it once, with",
        ),
        (
            "--config.loss=1",
            "--config.loss=1: expected a field of it, as --config.loss.FIELD=VALUE",
        ),
        (
            "--config.loss=none",
            "--config.loss=none: expected a field of it, as --config.loss.FIELD",
        ),
        (
            "--config.model.motion.widths=8 16",
            "--config.model.motion.widths=8 16: expected a tuple, as --config.model.",
        ),
        ("--config.train.resolutions=(0,64)", "train.resolutions: expected a tuple of pairs of"),
    ],
)
def test_a_wrong_value_of_training_is_a_wrong_flag(tmp_path, flag, words):
    flags = ["--config.data.packs=('a',)", flag, f"--workdir={tmp_path / 'run'}"]
    flags += ["--config.seed=1", "--config.seed=2"]  # of numbers the last one counts
    result = own_process.run("train.py", "--config=configs/demo.py:smoke", *flags)
    assert words in error_line(result)
    assert result.returncode == cli.EXIT_USAGE
    assert not (tmp_path / "run").exists()


def test_main_may_return_a_status(tmp_path):
    assert run_script(tmp_path, "return 7", "--needed=x").returncode == 7


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--needed=x", "--stesp=3"), "unknown flag --stesp: did you mean --steps?"),
        (("--needed=x", "--qqqqqq"), "unknown flag --qqqqqq: --help lists the flags"),
        (("--needed=x", "--steps=many"), "--steps=many: expected a whole number"),
        (("--needed",), "--needed needs a value"),
        ((), "--needed is required"),
        (("--needed=x", "a"), "a: not expected; every option has a flag (--help)"),
    ],
)
def test_wrong_flag_is_one_line_and_exit_code_two(tmp_path, arguments, words):
    result = run_script(tmp_path, "pass", *arguments)
    assert words in error_line(result)
    assert result.returncode == cli.EXIT_USAGE


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("raise cli.UserError('--source: a.txt\\nis no image')", "--source: a.txt is no image"),
        ("open('/nowhere/photo.png')", "/nowhere/photo.png: no such file or folder"),
        ("raise OSError(errno.ENOSPC, 'No space left on device', '/out/x')", "/out/x: the disk is"),
        ("raise RuntimeError('write: No space left on device')", "the disk is full"),
        ("open('.')", "this is a folder"),
    ],
)
def test_expected_error_is_one_line_and_exit_code_one(tmp_path, body, words):
    result = run_script(tmp_path, body, "--needed=x")
    assert words in error_line(result)
    assert result.returncode == cli.EXIT_ERROR


def test_interrupt_is_130(tmp_path):
    result = run_script(tmp_path, "raise KeyboardInterrupt", "--needed=x")
    assert error_line(result) == "error: interrupted"
    assert result.returncode == cli.EXIT_INTERRUPTED


def test_a_bug_keeps_its_traceback(tmp_path):
    result = run_script(tmp_path, "[][1]", "--needed=x")
    assert result.returncode == 1
    assert "Traceback" in result.stderr and "IndexError" in result.stderr


def test_traceback_on_request(tmp_path):
    result = run_script(
        tmp_path, "raise cli.UserError('no')", "--needed=x", **{cli.TRACEBACK_VARIABLE: "1"}
    )
    assert "Traceback" in result.stderr and "error: no" in result.stderr.splitlines()[-1]


def test_value_error_of_our_validation_is_expected():
    from instant_gs.geometry import camera

    message = cli.describe(raised(camera.look_at, 0.0, 2.0))
    assert message is not None and message.startswith("pitch_rad: expected"), message


def test_value_error_of_a_library_is_not():
    assert cli.describe(raised(int, "x")) is None


def test_type_error_of_a_wrong_call_is_not():
    # The call stands in our file, but nobody wrote a `raise`: it is a bug.
    from instant_gs.geometry import camera

    assert cli.describe(raised(camera.focal_length, "wide")) is None


def test_our_error_from_a_worker_process_is_expected():
    error = data_error.PackError("pack/manifest.json: truncated; pack again")
    assert cli.describe(error) == "pack/manifest.json: truncated; pack again"


def test_full_disk_is_found_behind_a_library_error():
    try:
        try:
            raise OSError(errno.ENOSPC, "No space left on device", "/ckpt/1")
        except OSError as inner:
            raise RuntimeError("checkpoint failed") from inner
    except RuntimeError as error:
        message = cli.describe(error)
    assert message is not None and "/ckpt/1" in message and "disk is full" in message, message
