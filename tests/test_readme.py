"""What the documents promise exists: commands and their flags, make targets, snippets, links."""

import dataclasses
import functools
import importlib.util
import json
import re
import shlex
import sys
import types
from pathlib import Path

import imageio.v3 as iio
import numpy as np
import pytest
from absl import flags

from configs import demo as demo_config
from configs import small as small_config
from instant_gs import cli
from tests import own_flags, own_process

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
README = DOCUMENTS[0].read_text(encoding="utf-8")

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


def blocks(text, language):
    return [body for name, body in _FENCE.findall(text) if name == language]


def commands():
    """(document, words) of every shell command in a fenced block, continuation lines joined."""
    found = []
    for path in DOCUMENTS:
        text = path.read_text(encoding="utf-8")
        for body in [*blocks(text, "bash"), *blocks(text, "sh"), *blocks(text, "")]:
            for line in body.replace("\\\n", " ").splitlines():
                if re.match(r"\s*(make|python|pip) ", line):
                    words = shlex.split(line, comments=True)
                    found.append(pytest.param(words, id=f"{path.name}: {' '.join(words)[:60]}"))
    return found


COMMANDS = commands()


MAKE_TARGETS = sorted(
    {param.values[0][1] for param in COMMANDS if param.values[0][0] == "make"}
    | {
        target
        for path in DOCUMENTS
        for target in re.findall(r"`make (\w+)", path.read_text("utf-8"))
    }
)


def python_commands():
    return [param for param in COMMANDS if param.values[0][0] == "python"]


@functools.cache
def help_text(program):
    """What the program says to --helpfull; program is ("train.py",) or ("-m", module)."""
    result = own_process.run(*program, "--helpfull")
    assert result.returncode in (0, 1), result.stderr  # absl's help exits with 1
    assert "Traceback" not in result.stderr, result.stderr
    return result.stdout


def has_field(config, dotted):
    for name in dotted.split("."):
        names = {field.name for field in dataclasses.fields(config)}
        if name not in names:
            return False
        config = getattr(config, name)
    return True


def load_config(path):
    spec = importlib.util.spec_from_file_location("readme_config", ROOT / path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config()


def test_documents_contain_commands():
    programs = {param.values[0][0] for param in COMMANDS}
    assert programs >= {"make", "python"}, programs
    assert len(python_commands()) >= 6


@pytest.mark.parametrize("target", MAKE_TARGETS)
def test_make_target_exists(target):
    makefile = (ROOT / "Makefile").read_text()
    assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"Makefile has no target {target}"


def check_command(words):
    """Fails if the program, one of its flags or a field of its configuration does not exist."""
    program = tuple(words[1:3]) if words[1] == "-m" else (words[1],)
    arguments = words[len(program) + 1 :]
    if program[0] == "-m":
        assert program[1] == "pytest" or (ROOT / program[1].split(".")[0]).is_dir(), program
    text = help_text(program)
    config = None
    for argument in arguments:
        match = re.match(r"--([\w.]+)(?:=(.*))?$", argument)
        if not match or match[1] in ("help", "helpfull"):
            continue
        name, value = match.groups()
        if name == "config":
            assert (ROOT / value.partition(":")[0]).is_file(), f"{value} does not exist"
            config = load_config(value.partition(":")[0])
        if name.startswith("config."):
            assert config is not None and has_field(config, name.removeprefix("config.")), argument
            continue
        bare = name.removeprefix("no")
        pattern = rf"--(\[no\])?({re.escape(name)}|{re.escape(bare)})\b"
        assert re.search(pattern, text), f"{' '.join(program)} has no flag --{name}"


@pytest.mark.parametrize("words", python_commands())
def test_command_and_its_flags_exist(words):
    check_command(words)


@pytest.fixture
def demo():
    """instant_gs.demo, with flags of its own."""
    with own_flags.alone():
        yield importlib.import_module("instant_gs.demo")
        del sys.modules["instant_gs.demo"]


# imageio leaves FFmpeg's pipes to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_demo_joins_commands_that_exist(demo, monkeypatch, tmp_path, capsys):
    """All of `make demo` but the work itself: programs leave small results of their kinds."""
    picture, done = np.zeros((16, 32, 3), np.uint8), []
    scores = {"moved": {"psnr": {"mean": 26.0}, "fid": {"mean": None}}}
    part = {"count": 2, "failure_rate": 0.0, "scores": scores, "ratios": {"eyes": {"ratio": 0.7}}}

    def run(command, **options):
        del options
        check_command(["python", *command[1:]])
        given = dict(word[2:].split("=", 1) for word in command[1:] if "=" in word)
        program = command[2] if command[1] == "-m" else command[1]
        done.append(program)
        if program.endswith("procedural"):
            frames = Path(given["pack"]) / "someone" / "neutral-0-v0.rgb"
            frames.mkdir(parents=True)
            iio.imwrite(frames / "00000.png", picture)
        elif program.endswith("animate"):
            assert Path(given["source"]).is_file() and any(Path(given["driving"]).iterdir())
            iio.imwrite(given["out"], np.stack([picture] * 20), fps=25)
        elif program == "eval.py":
            (tmp_path / "out" / "report").mkdir()
            text = json.dumps({"protocols": {"cross": part}})
            (tmp_path / "out" / "report" / "report.json").write_text(text)
        elif program == "train.py":
            Path(given["workdir"]).mkdir()
            lines = [json.dumps({"avatar/loss": value}) for value in (2.0, 1.5)]
            (Path(given["workdir"]) / "metrics.jsonl").write_text("\n".join(lines))
        return types.SimpleNamespace(returncode=0)

    monkeypatch.chdir(ROOT)
    sizes = [config.get_config().model.image_size for config in (small_config, demo_config)]
    assert [demo.SIZE, demo.TRAINED_SIZE] == sizes
    monkeypatch.setattr(demo, "subprocess", types.SimpleNamespace(run=run))
    flags.FLAGS(["demo", f"--out={tmp_path / 'out'}"])
    demo.main([])
    with pytest.raises(cli.UserError, match="is not empty"):
        demo.main([])
    assert {"eval.py", "train.py", "instant_gs.animate", "instant_gs.data.pack"} < set(done)
    sheet = iio.imread(tmp_path / "out" / "contact_sheet.png")
    assert sheet.shape == (demo.SHEET_ROWS * 16, 64, 3)
    said = capsys.readouterr().out
    assert "cross-reenactment, 2 cases" in said and "loss 2.000 -> 1.500" in said
    assert "0.70 of the error without motion" in said and "avatar.ply" in said


def test_the_demo_stops_with_what_it_calls(demo, monkeypatch):
    failed = types.SimpleNamespace(run=lambda *_, **__: types.SimpleNamespace(returncode=3))
    monkeypatch.setattr(demo, "subprocess", failed)
    with pytest.raises(cli.UserError, match="failed with code 3"):
        demo._run("eval.py")


def test_help_is_quick():
    # jax alone takes a second to import; --help must not wait for it.
    code = "import sys, train; print(sorted({'jax', 'flax', 'cv2', 'grain'} & set(sys.modules)))"
    assert own_process.python(code).strip() == "[]"


def test_python_snippets_compile_and_name_what_exists():
    snippets = blocks(README, "python")
    assert len(snippets) >= 2
    for snippet in snippets:
        compile(snippet, "README.md", "exec")


def test_rasterizer_snippet_runs(capsys):
    (snippet,) = [body for body in blocks(README, "python") if "kernels.rasterize" in body]
    variables = {}
    exec(compile(snippet, "README.md", "exec"), variables)
    out = variables["out"]
    assert out.image.shape == (1, 64, 64, 3)
    assert 0.02 < float(out.alpha.mean()) < 0.98, "the snippet draws nothing, or everything"
    assert capsys.readouterr().out


@pytest.mark.slow
def test_avatar_snippet_runs(tmp_path, monkeypatch):
    """Exactly the README's code, with tiny weights in the place of those that ship."""
    import skimage.data
    import skimage.io

    from instant_gs.inference import avatar
    from instant_gs.training import weights
    from tests.inference import tiny

    engine = tiny.build(residual_scale=0.03)  # of order one, an untrained decoder paints black
    weights.save(tmp_path / "weights", engine.config, engine.params, {"commit": "x"})
    monkeypatch.setattr(avatar, "SHIPPED_WEIGHTS", tmp_path / "weights")
    monkeypatch.chdir(tmp_path)
    skimage.io.imsave("photo.png", skimage.data.astronaut())
    skimage.io.imsave("driver.png", skimage.data.astronaut()[:, ::-1])
    (snippet,) = [body for body in blocks(README, "python") if "instant_gs.load" in body]
    variables = {}
    exec(compile(snippet, "README.md", "exec"), variables)
    assert variables["model"].image_size == tiny.SIZE
    assert variables["frame"].shape == (tiny.SIZE, tiny.SIZE, 3)
    assert 0.02 < float(variables["frame"].mean()) < 0.9


def test_python_is_the_first_thing_after_the_two_commands():
    titles = re.findall(r"^## (.*)", README, re.MULTILINE)
    assert titles[:2] == ["Try it", "Python"]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path):
    text = re.sub(r"<!--.*?-->", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    targets = [target.partition("#")[0] for target in _LINK.findall(text)]
    missing = [
        target
        for target in targets
        if target and "://" not in target and not (path.parent / target).exists()
    ]
    assert not missing, f"{path.relative_to(ROOT)} links to what does not exist: {missing}"


def test_layout_map_names_what_exists():
    section = README.partition("## Where things are")[2].partition("\n## ")[0]
    paths = [name for row in re.findall(r"^\| (`.*?) \|", section, re.M) for name in row.split(",")]
    assert len(paths) >= 10
    missing = [path for path in paths if not (ROOT / path.strip(" `")).exists()]
    assert not missing, f"README's map names what does not exist: {missing}"
