"""Times the rasterizer on named workloads, or others like them, and prints one JSON line for each.

    python -m kernels.bench --case=small_200k
    python -m kernels.bench --case=demo_96,demo_128 --implementation=xla --repeats=20
    python -m kernels.bench --case=target_200k --splats=50000 --size=256 --capacity=measured
    python -m kernels.bench --plot=growth.png        # time against splats and against pixels

Each line holds compile time, median and quartiles of the run time, memory and the machine. Timing
fails if anything compiles meanwhile. Every case runs in a process of its own unless --noisolate, so
that peak memory is that case's (null with --capacity=measured, which renders once before).
`kernels.timing.measure` times scenes of one's own.
"""

import dataclasses
import importlib.util
import json
import logging
import subprocess
import sys
from pathlib import Path

from absl import app, flags

import kernels
from kernels import timing, validation
from kernels.rasterize import api, cases

_CASE = flags.DEFINE_list("case", None, f"Workloads, of: {', '.join(cases.CASES)}.")
_SPLATS = flags.DEFINE_integer("splats", None, "As many splats instead.", lower_bound=1)
_SIZE = flags.DEFINE_integer("size", None, "Square images of that side instead.", lower_bound=1)
_CHANNELS = flags.DEFINE_integer("channels", None, "As many channels instead.", lower_bound=1)
_CAMERAS = flags.DEFINE_integer("cameras", None, "As many cameras a scene instead.", lower_bound=1)
_BATCH = flags.DEFINE_integer("batch", None, "As many scenes at once instead.", lower_bound=1)
_DIRECTION = flags.DEFINE_list(
    "direction", list(timing.DIRECTIONS), f"What to time: {', '.join(timing.DIRECTIONS)}."
)
_IMPLEMENTATION = flags.DEFINE_enum(
    "implementation", None, api.IMPLEMENTATIONS, "Backend; default: what rasterize picks."
)
_CAPACITY = flags.DEFINE_string(
    "capacity", None, 'Intersections per image, or "measured"; default: automatic.'
)
_TILE_SIZE = flags.DEFINE_list("tile_size", None, "height,width of tiles; default: the backend's.")
_MODE = flags.DEFINE_enum("mode", "classic", ["classic", "antialiased"], "Rasterization mode.")
_DETERMINISTIC = flags.DEFINE_boolean("deterministic", False, "Bit-identical gradients.")
_REPEATS = flags.DEFINE_integer("repeats", 10, "Timed calls.", lower_bound=1)
_ISOLATE = flags.DEFINE_boolean("isolate", True, "Run every case in its own process.")
_PLOT = flags.DEFINE_string("plot", None, "Write this PNG of time against splats and pixels.")


_SIZES = (_SPLATS, _SIZE, _CHANNELS, _CAMERAS, _BATCH)
_MEASURED = "measured"


class UsageError(ValueError):
    """A flag that makes no sense."""


def _case(name: str) -> cases.Case:
    """A named workload, with the sizes, and a name, that flags say instead of its own."""
    sizes = {
        "num_splats": _SPLATS.value,
        "image_size": (_SIZE.value,) * 2 if _SIZE.value else None,
        "channels": _CHANNELS.value,
        "cameras": _CAMERAS.value,
        "batch": _BATCH.value,
    }
    given = {field: value for field, value in sizes.items() if value}
    changed = ",".join([name, *(f"{flag.name}={flag.value}" for flag in _SIZES if flag.value)])
    return dataclasses.replace(cases.CASES[name], name=changed, **given)


def _options() -> kernels.RasterizeOptions:
    tile_size = tuple(int(side) for side in _TILE_SIZE.value or ()) or None
    automatic = _CAPACITY.value in (None, _MEASURED)
    return kernels.RasterizeOptions(
        mode=_MODE.value,
        capacity=None if automatic else int(_CAPACITY.value),
        tile_size=tile_size,
        deterministic=_DETERMINISTIC.value,
    )


def _measure(name: str, direction: str) -> dict:
    case, options = _case(name), _options()
    arrays = case.build()
    given = {"image_size": case.image_size, "backend": _IMPLEMENTATION.value}
    measured = _CAPACITY.value == _MEASURED
    if measured:
        size, backend = given.values()
        needed = [
            kernels.propose_capacity(
                *scene, image_size=size, options=options, implementation=backend
            )
            for scene in zip(*arrays, strict=True)
        ]
        options = dataclasses.replace(options, capacity=max(needed))
    row = timing.measure(
        arrays, direction, options, **given, repeats=_REPEATS.value, name=case.name
    )
    if measured:
        row["peak_bytes"] = None  # it holds the measuring
    if row["overflow"]:
        print(
            f"warning: {case.name}: {row['overflow']} intersections of an image did not fit and "
            "were left out; for the time of whole pictures pass --capacity=measured",
            file=sys.stderr,
        )
    return row


def _run_isolated(name: str, direction: str) -> dict:
    """Runs one case in a fresh process with the same flags."""
    command = [sys.executable, "-m", "kernels.bench", *sys.argv[1:]]
    command += [f"--case={name}", f"--direction={direction}", "--noisolate", "--plot="]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(f"{name} {direction}: its process ended with code {done.returncode}, see above")
    return json.loads(done.stdout.strip().splitlines()[-1])


def plot(rows: list[dict], path: Path) -> None:
    """Draws time against splats and against pixels, with a straight line for comparison."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
    sizes = {
        "splats": lambda row: row["splats"],
        "pixels": lambda row: row["height"] * row["width"],
    }
    for axis, (sweep, size) in zip(axes, sizes.items(), strict=True):
        for direction in dict.fromkeys(row["direction"] for row in rows):
            chosen = [
                row
                for row in rows
                if row["case"] in cases.SWEEPS[sweep] and row["direction"] == direction
            ]
            chosen.sort(key=size)
            x = [size(row) for row in chosen]
            y = [row["median_ms"] for row in chosen]
            label = direction.replace("_", " + ")
            (line,) = axis.plot(x, y, marker="o", label=label)
            if x:
                axis.plot([0, x[-1]], [0, y[-1]], ":", color=line.get_color(), alpha=0.5)
        fixed = "512x512 pixels" if sweep == "splats" else "100,000 splats"
        axis.set(title=f"{fixed} (dotted: proportional)", xlabel=sweep, ylabel="median ms")
        axis.set_xlim(left=0)
        axis.set_ylim(bottom=0)
        axis.legend()
    temporary = path.with_name(path.name + ".partial")
    figure.savefig(temporary, format="png", dpi=110)
    temporary.replace(path)


def _check_flags(argv: list[str]) -> None:
    """Raises UsageError before anything is timed."""
    if len(argv) > 1:
        raise UsageError(f"unexpected argument {argv[1]!r}; write --case=NAME")
    for flag, known in ((_CASE, cases.CASES), (_DIRECTION, timing.DIRECTIONS)):
        if flag.value == []:
            raise UsageError(f"--{flag.name}=: expected some of {sorted(known)}")
        unknown = sorted(set(flag.value or ()) - set(known))
        if unknown:
            raise UsageError(f"--{flag.name}: unknown {unknown}, expected some of {sorted(known)}")
    sides = _TILE_SIZE.value or ["8", "8"]
    if len(sides) != 2 or not all(side.isdigit() for side in sides):
        raise UsageError(f"--tile_size={','.join(sides)}: expected height,width, as 8,8")
    capacity = _CAPACITY.value or _MEASURED
    if capacity != _MEASURED and not capacity.isdecimal():
        raise UsageError(f"--capacity={capacity}: expected a number or {_MEASURED}")
    if _CAPACITY.value == _MEASURED and _IMPLEMENTATION.value == "reference":
        raise UsageError("--capacity=measured: the reference has no slots; leave it out")
    try:
        validation.check_options(_options())
    except ValueError as error:
        raise UsageError(str(error).replace("options.", "--")) from error
    if not _PLOT.value:
        return
    for flag in _SIZES:
        if flag.value:
            raise UsageError(f"--plot: draws its own cases' sizes; leave --{flag.name} out")
    if importlib.util.find_spec("matplotlib") is None:
        raise UsageError("--plot: needs matplotlib; pip install matplotlib")
    if not _PLOT.value.endswith(".png"):
        raise UsageError(f"--plot={_PLOT.value}: the name must end in .png")
    if not Path(_PLOT.value).absolute().parent.is_dir():
        raise UsageError(f"--plot={_PLOT.value}: no such folder; make it first")
    if Path(_PLOT.value).exists():
        raise UsageError(f"--plot={_PLOT.value}: exists already; choose another name")


def main(argv: list[str]) -> None:
    """Command line."""
    logging.getLogger("jax._src.xla_bridge").setLevel(logging.WARNING)  # "no TPU here" is no news
    try:
        _check_flags(argv)
        _run()
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except NotImplementedError as error:  # a backend that this machine cannot run
        sys.exit(f"error: {error}")


def _run() -> None:
    names = list(_CASE.value or ([] if _PLOT.value else ["demo_96", "small_200k"]))
    if _PLOT.value:
        names += [name for sweep in cases.SWEEPS.values() for name in sweep if name not in names]
    rows = []
    for name in names:
        for direction in _DIRECTION.value:
            row = (_run_isolated if _ISOLATE.value else _measure)(name, direction)
            rows.append(row)
            print(json.dumps(row), flush=True)
    if _PLOT.value:
        plot(rows, Path(_PLOT.value))
        print(f"wrote {_PLOT.value}", file=sys.stderr)


if __name__ == "__main__":
    app.run(main)
