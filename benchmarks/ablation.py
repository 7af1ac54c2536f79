"""Trains every ablation of the paper in miniature on one pack, and writes a table of their worth.

    python -m benchmarks.ablation --pack=packs/ablation_96 --out=out/ablation

Every variant (`configs/ablation.py`) has the same seed, the same data in the same order and the
same number of steps. A run that was interrupted goes on when the command runs again. What makes a
pack, how long it takes and what was seen: docs/training.md.
"""

import pathlib
import shlex
import sys
import time

from absl import flags

from configs import ablation
from instant_gs import cli, version

_PACK = flags.DEFINE_string("pack", None, "Packed teacher pack.", required=True)
_OUT = flags.DEFINE_string("out", None, "Folder for runs and tables.", required=True)
_VARIANT = flags.DEFINE_multi_enum(
    "variant", list(ablation.MINIATURES), list(ablation.MINIATURES), "Repeat the flag for several."
)
_STEPS = flags.DEFINE_integer("steps", ablation.MINIATURE_STEPS, "Of training.", lower_bound=2)
_SEED = flags.DEFINE_integer(
    "seed", 0, "Of initialisation, sampling and augmentation.", lower_bound=0
)
_LIMIT = flags.DEFINE_integer("limit", 64, "Test cases.", lower_bound=1)
_SPLIT = flags.DEFINE_enum("split", "test", ["train", "validation", "test", "all"], "Identities.")

SCORES = ("psnr", "lpips", "error_eyes_mouth")


def main(argv):
    del argv
    out = pathlib.Path(_OUT.value)
    names = list(dict.fromkeys(_VARIANT.value))
    _check_pack(make_config(names[0]).model.image_size)
    _share_compiled(out)
    rows = []
    for name in names:
        rows.append({"variant": name, **_train_and_score(name, out / name)})
        _write(out, rows)  # after each: nothing is lost if a later one fails
    print((out / "ablation.md").read_text())


def make_config(name: str):
    """The configuration of a miniature with the flags applied."""
    config = ablation.get_config(f"{name},mini")
    config.data.packs = (_PACK.value,)
    config.seed = _SEED.value
    ablation.set_steps(config, _STEPS.value)
    return config


def _share_compiled(out: pathlib.Path) -> None:
    """Variants have much in common, and compiling is a fifth of the time."""
    import jax

    jax.config.update("jax_compilation_cache_dir", str(out.absolute() / "compiled"))


def _check_pack(image_size: int) -> None:
    """Raises PackError or ValueError before hours are spent if there will be no test cases."""
    from instant_gs.data import reader
    from instant_gs.evaluation import protocol

    pack = reader.Pack(_PACK.value)
    next(protocol.cases(pack, _SPLIT.value, "cross", image_size=image_size, limit=1))


def _train_and_score(name: str, workdir: pathlib.Path) -> dict:
    import instant_gs
    from instant_gs.data import reader
    from instant_gs.evaluation import evaluator, score
    from instant_gs.inference import avatar
    from instant_gs.training import loop

    config = make_config(name)
    resumed = (workdir / "checkpoints").is_dir()
    began = time.process_time()
    loop.train(config, workdir, motion_encoder=str(avatar.SHIPPED_WEIGHTS))
    seconds = time.process_time() - began
    options = evaluator.Options(
        split=_SPLIT.value, protocols=("cross",), limit=_LIMIT.value, identity=False, speed=False
    )
    scorers = [score.ImageScorer()]
    pack = reader.Pack(_PACK.value)
    done = evaluator.evaluate(instant_gs.load(workdir), pack, options, scorers)
    part = done.result["protocols"]["cross"]
    scores = part["scores"]["moved"]
    against = part["ratios"].get("error_eyes_mouth", {})
    return {
        "seed": config.seed,
        "steps": config.train.steps,
        "cases": part["count"],
        "cpu_seconds": None if resumed else round(seconds, 1),
        "against_no_motion": against.get("ratio"),
        "share_improved": against.get("share_improved"),
        **{score: scores[score]["mean"] if score in scores else None for score in SCORES},
    }


def _write(out: pathlib.Path, rows: list[dict]) -> None:
    import jax

    from benchmarks import ablation_table, provenance

    command = shlex.join(["python", "-m", "benchmarks.ablation", *sys.argv[1:]])
    facts = {
        "command": command,
        "commit": version.commit(),
        "device": jax.devices()[0].device_kind,
    }
    provenance.write(out / "ablation.json", {**facts, "rows": rows})
    (out / "ablation.md").write_text(ablation_table.markdown(rows, facts), encoding="utf-8")


if __name__ == "__main__":
    cli.run(main)
