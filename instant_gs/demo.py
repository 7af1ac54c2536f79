"""The whole system in minutes, on a CPU: `python -m instant_gs.demo`.

Animates a held-out identity and a real photo with the weights that ship, evaluates those weights
on a freshly rendered pack, then trains the demo configuration from scratch for a few minutes.
Every step is one of the commands that the README explains; the demo prints each before it runs.
"""

import json
import pathlib
import subprocess
import sys
import time

from absl import flags

from instant_gs import cli

_OUT = flags.DEFINE_string(
    "out", None, "Folder to write, new or empty. [out/demo, out/demo-2, ...]"
)
_TRAIN_STEPS = flags.DEFINE_integer("train_steps", 60, "Steps of the training at the end.")
_CASES = flags.DEFINE_integer("cases", 16, "Cases a protocol of the evaluation.", lower_bound=1)

SEED = 7  # of the teacher, the same as the shipped weights'
HELD_OUT = 900_000  # identities from here on were in no training pack
SHEET_ROWS = 8
SIZE, TRAINED_SIZE = 256, 96  # of the shipped weights' pictures, and of those of configs/demo.py


def main(argv):
    del argv
    if not pathlib.Path("eval.py").is_file():
        raise cli.UserError("instant_gs.demo: run it in a checkout of the repository, as make does")
    out = _folder(_OUT.value)
    start = time.monotonic()
    _title("1. Teacher: five people whom the shipped weights have never seen")
    _render(out / "driving", start=HELD_OUT, identities=1, performances=16, frames=8, views=1)
    _render(out / "test_source", start=HELD_OUT + 1, identities=4, performances=12, frames=3)
    source = _join_frames(out)
    _title("2. One photo, animated")
    _animate(
        out,
        source,
        "avatar",
        "--source_aligned",
        "--pose=orbit",
        "--orbit=25",
        f"--ply={out}/avatar.ply",
    )
    first = time.monotonic() - start
    photo = _write_photo(out)
    _animate(out, photo, "astronaut", f"--show_crop={out}/astronaut_crop.png")
    sheet = _contact_sheet(out / "avatar.mp4", out / "contact_sheet.png")
    _title("3. Evaluation against true images")
    _pack(out, "test", SIZE)
    _run(
        "eval.py",
        f"--pack={out}/test",
        "--split=all",
        f"--limit={_CASES.value}",
        f"--out={out}/report",
    )
    _title("4. Training from scratch, for a look at the loop")
    people = {"identities": 12, "performances": 6, "frames": 4}
    _render(out / "train_source", start=0, size=TRAINED_SIZE, **people)
    _pack(out, "train", TRAINED_SIZE)
    _train(out)
    _summary(out, sheet, first, time.monotonic() - start)


def _folder(wanted: str | None) -> pathlib.Path:
    """The wanted folder, or the next free one; created, empty."""
    names = ["out/demo", *(f"out/demo-{number}" for number in range(2, 1000))]
    for name in [wanted] if wanted else names:
        out = pathlib.Path(name)
        if not out.exists() or not any(out.iterdir()):
            out.mkdir(parents=True, exist_ok=True)
            return out
    raise cli.UserError(f"--out={out} is not empty; remove it or choose another folder")


def _render(folder, *, start, identities, performances, frames, views=2, size=SIZE):
    _module(
        "instant_gs.teacher.procedural",
        f"--pack={folder}",
        f"--seed={SEED}",
        f"--start={start}",
        f"--identities={identities}",
        f"--performances={performances}",
        f"--bank={performances}",
        f"--frames={frames}",
        f"--views={views}",
        f"--image_size={size}",
        "--workers=2",
    )


def _pack(out: pathlib.Path, name: str, size: int) -> None:
    _module(
        "instant_gs.data.pack",
        f"--source={out}/{name}_source",
        f"--out={out}/{name}",
        f"--image_size={size}",
    )


def _join_frames(out: pathlib.Path) -> pathlib.Path:
    """Puts all clips of the driver behind one another; returns a source photo of somebody else."""
    joined = out / "driving_frames"
    joined.mkdir()
    frames = sorted(out.glob("driving/*/*-v0.rgb/*.png"))
    for number, frame in enumerate(frames):
        (joined / f"{number:05d}.png").write_bytes(frame.read_bytes())
    return min(out.glob("test_source/*/neutral-*-v0.rgb/00000.png"))


def _animate(out, source, name, *options):
    _module(
        "instant_gs.animate",
        f"--source={source}",
        f"--driving={out}/driving_frames",
        "--driving_aligned",
        "--side_by_side",
        f"--out={out}/{name}.mp4",
        *options,
    )


def _write_photo(out: pathlib.Path) -> pathlib.Path:
    """A real photo that ships in a package: NASA's portrait of Eileen Collins, public domain."""
    import imageio.v3 as iio
    import skimage.data

    path = out / "astronaut.png"
    iio.imwrite(path, skimage.data.astronaut())
    return path


def _contact_sheet(movie: pathlib.Path, sheet: pathlib.Path) -> pathlib.Path:
    """Frames of a side-by-side video, evenly spread, one below the other in two columns."""
    import imageio.v3 as iio
    import numpy as np

    frames = iio.imread(movie)
    rows = frames[np.linspace(0, len(frames) - 1, 2 * SHEET_ROWS).astype(int)]
    iio.imwrite(sheet, np.hstack([np.vstack(rows[:SHEET_ROWS]), np.vstack(rows[SHEET_ROWS:])]))
    return sheet


def _train(out: pathlib.Path) -> None:
    _run(
        "train.py",
        "--config=configs/demo.py",
        f"--workdir={out}/run",
        f'--config.data.packs=("{out}/train",)',
        "--config.motion_pretrain.steps=40",
        f"--config.train.steps={_TRAIN_STEPS.value}",
        "--config.train.log_every=10",
        f"--config.train.image_every={_TRAIN_STEPS.value}",
    )


def _summary(out, sheet, first_video: float, total: float) -> None:
    result = json.loads((out / "report" / "report.json").read_text())
    _title("Done")
    for name, part in result["protocols"].items():
        print(
            f"{name}-reenactment, {part['count']} cases, no face found in {part['failure_rate']}:"
        )
        for score, value in part["scores"]["moved"].items():
            if value["mean"] is not None:
                print(f"  {score:24s} {value['mean']:.3f}")
        for score, value in part["ratios"].items():
            print(f"  {score:24s} {value['ratio']:.2f} of the error without motion")
    metrics = [
        json.loads(line) for line in (out / "run" / "metrics.jsonl").read_text().splitlines()
    ]
    losses = [line["avatar/loss"] for line in metrics if "avatar/loss" in line]
    print(f"training from scratch: loss {losses[0]:.3f} -> {losses[-1]:.3f}")
    print(f"first video after {first_video:.0f} s, everything after {total:.0f} s")
    for what, path in (
        ("animated person", out / "avatar.mp4"),
        ("animated photo", out / "astronaut.mp4"),
        ("contact sheet", sheet),
        ("report", out / "report" / "report.html"),
        ("Gaussians of a frame", out / "avatar.ply"),
        ("training samples", out / "run" / "samples"),
    ):
        print(f"  {what:22s} {path}")


def _title(text: str) -> None:
    print(f"\n=== {text}", flush=True)


def _module(module: str, *options: str) -> None:
    _run("-m", module, *options)


def _run(*command: str) -> None:
    """Runs one command of the README with this Python; its failure is ours."""
    print("$ python " + " ".join(command), flush=True)
    done = subprocess.run([sys.executable, *command], check=False)
    if done.returncode:
        raise cli.UserError(
            f"the demo stopped: the command above failed with code {done.returncode}; its last "
            "line says why"
        )


if __name__ == "__main__":
    cli.run(main)
