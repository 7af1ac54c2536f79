"""Kills a small training again and again, and compares it with an undisturbed one.

    python -m benchmarks.chaos --kills=20

Each kill is a SIGKILL at a random moment of one kind: while the process starts, between two steps,
or while a checkpoint is being written. In the end both runs are stopped by SIGTERM, which must end
in exit code 75, and their checkpoints of one step are compared. Prints a JSON line; the exit code
is 1 if a bit differs. With --motion_steps=1000 it stays in the first phase, which starts quicker.
"""

import json
import os
import pathlib
import queue
import subprocess
import sys
import tempfile
import threading
import time

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import flags

from instant_gs import cli, version
from instant_gs.data import packing, synthetic

_KILLS = flags.DEFINE_integer("kills", 20, "How often to kill.", lower_bound=1)
_MOTION_STEPS = flags.DEFINE_integer("motion_steps", 10, "Steps before the avatar phase.")
_SEED = flags.DEFINE_integer("seed", 0, "Of the moments.", lower_bound=0)

KINDS = ("start", "step", "checkpoint")
_ROOT = pathlib.Path(__file__).resolve().parent.parent
# A compiled step serves all processes; without it they would spend their lives compiling.
_ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    # One device, whatever the caller has.
    "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=1",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}
_CHECKPOINT_EVERY = 2
_PATIENCE = 1800  # seconds without a new line before a process counts as stuck


class _Process:
    """A running training: its lines as they come."""

    def __init__(self, folder: pathlib.Path, name: str, motion_steps: int):
        settings = {
            "data.packs": f'("{folder / "packed"}",)',
            "motion_pretrain.steps": motion_steps,
            "train.steps": 10_000,  # it never ends by itself
            "train.log_every": 1,
            "train.image_every": 10_000,
            "train.checkpoint_every": _CHECKPOINT_EVERY,
            "train.keep_checkpoints": 200,
            "loss.lpips": 0.0,
        }
        self.workdir = folder / name
        self.started = time.monotonic()
        self._process = subprocess.Popen(
            [
                *(sys.executable, "train.py", "--config=configs/demo.py:smoke"),
                f"--workdir={self.workdir}",
                *(f"--config.{field}={value}" for field, value in settings.items()),
            ],
            cwd=_ROOT,
            env=os.environ | _ENVIRONMENT | {"JAX_COMPILATION_CACHE_DIR": str(folder / "xla")},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._lines = queue.Queue()
        self.text = ""
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def wait_for_steps(self, count: int) -> None:
        """Returns after the lines of ``count`` more steps."""
        for _ in range(count):
            self._next_step()

    def wait_beyond(self, step: int) -> None:
        """Returns after the line of a later step."""
        while self._next_step() <= step:
            pass

    def _next_step(self) -> int:
        while True:
            line = self._lines.get(timeout=_PATIENCE)
            if line is None:
                raise RuntimeError(f"the run ended by itself:\n{self.text}")
            if line.startswith(("motion ", "avatar ")):
                return int(line.split()[1].partition("/")[0])

    def saved(self) -> int:
        """The newest whole checkpoint's step, or 0."""
        names = [path.name for path in (self.workdir / "checkpoints").glob("*")]
        return max((int(name) for name in names if name.isdigit()), default=0)

    def wait_for_saved(self, step: int) -> None:
        """Returns when there is a whole checkpoint of a later step."""
        while self.saved() <= step:
            self._next_step()

    def writing(self) -> bool:
        """Whether a checkpoint is half written."""
        return any((self.workdir / "checkpoints").glob("*.orbax-checkpoint-tmp*"))

    def wait_for_writing(self) -> None:
        """Returns as soon as a checkpoint begins to be written."""
        while not self.writing():
            if self._process.poll() is not None:
                raise RuntimeError(f"the run ended by itself:\n{self.text}")
            time.sleep(0.0005)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self._listener.join()

    def stop(self) -> None:
        self._process.terminate()
        status = self._process.wait()
        self._listener.join()
        if status != cli.EXIT_RESUMABLE:
            raise RuntimeError(f"exit code {status} after SIGTERM:\n{self.text}")

    def _listen(self) -> None:
        with self._process.stdout as lines:
            for line in lines:
                self.text += line
                self._lines.put(line)
        self._lines.put(None)


def run(folder: pathlib.Path, kills: int, seed: int, motion_steps: int) -> dict:
    """Trains with kills, then undisturbed as far, and compares.

    Args:
        folder: Receives pack, runs and compiled steps.
        kills: How many; the kinds take turns in random order.
        seed: Of order and moments.
        motion_steps: Steps before the avatar phase, which takes longer to compile.

    Returns:
        JSON-able: kills by kind, ``half_written`` checkpoints that kills left behind, the step
        that was ``compared``, in how many ``arrays``, and those ``different``.
    """
    names = synthetic.names_in_split("train", 6)
    source = synthetic.write_pack(folder / "source", names, image_size=32, views=3, frames=3)
    packing.pack(source, folder / "packed", packing.Options(image_size=32), workers=1)
    rng = np.random.default_rng(seed)
    kinds = rng.permutation(np.resize(KINDS, kills)).tolist()
    half_written, start_seconds, saved = 0, 5.0, 0
    for kind in kinds:
        process = _Process(folder, "killed", motion_steps)
        if kind == "start":
            time.sleep(rng.uniform(0, start_seconds))
        else:
            process.wait_for_steps(1)
            start_seconds = time.monotonic() - process.started
            process.wait_for_saved(saved)  # or the whole test would be about the first steps
            if kind == "step":
                process.wait_for_steps(int(rng.integers(3)))
                time.sleep(rng.uniform(0, 0.2))
            else:
                process.wait_for_writing()
                time.sleep(rng.uniform(0, 0.05))
        process.kill()
        # One that died while it started may have found, and not yet removed, its predecessor's.
        half_written += kind != "start" and process.writing()
        saved = process.saved()
        seconds = time.monotonic() - process.started
        print(f"killed: {kind}, after {seconds:.1f} s, step {saved} is saved", flush=True)
    compared = saved + 2 * _CHECKPOINT_EVERY
    workdirs = []
    for name in ("killed", "undisturbed"):
        process = _Process(folder, name, motion_steps)
        process.wait_beyond(compared)
        process.stop()
        workdirs.append(process.workdir)
    one, other = (_contents(workdir, compared) for workdir in workdirs)
    return {
        "kills": {kind: kinds.count(kind) for kind in KINDS},
        "half_written": half_written,
        "motion_steps": motion_steps,
        "compared": compared,
        "arrays": len(one),
        "different": _differences(one, other),
    }


def _contents(workdir: pathlib.Path, step: int) -> dict:
    """Everything in a checkpoint, and the losses logged until then, by name."""
    with ocp.CheckpointManager(
        workdir / "checkpoints", item_names=("state", "ema", "data")
    ) as manager:
        arguments = ocp.args.Composite(
            state=ocp.args.StandardRestore(),
            ema=ocp.args.StandardRestore(),
            data=ocp.args.JsonRestore(),
        )
        found = dict(manager.restore(step, args=arguments).items())
    leaves = jax.tree_util.tree_leaves_with_path(found)
    arrays = {jax.tree_util.keystr(path): np.asarray(leaf).tobytes() for path, leaf in leaves}
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    losses = [
        (line["step"], line.get("motion/loss"), line.get("avatar/loss"))
        for line in lines
        if line["step"] <= step
    ]
    return arrays | {"losses": losses}


def _differences(one: dict, other: dict) -> list[str]:
    return sorted(name for name in one | other if one.get(name) != other.get(name))


def main(argv: list[str]) -> int:
    del argv
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        result = run(pathlib.Path(folder), _KILLS.value, _SEED.value, _MOTION_STEPS.value)
    result |= {
        "seconds": round(time.monotonic() - begin),
        "cores": len(os.sched_getaffinity(0)),
        "commit": version.commit(),
    }
    print(json.dumps(result))
    return 1 if result["different"] else 0


if __name__ == "__main__":
    cli.run(main)
