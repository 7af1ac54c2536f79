"""Trains every ablation of the paper on one pack and writes what each is worth, as a table.

    python -m benchmarks.ablation --pack=packs/small --out=out/ablation

Every variant (`configs/ablation.py`) has the same seed, the same data in the same order and the
same number of steps. A run that was interrupted goes on when the command runs again. The variant
"fan" needs weights that do not ship, and is trained if --motion_encoder gives them.
"""

import pathlib
import shlex
import sys
import time

from absl import flags

from configs import ablation
from instant_gs import cli

_PACK = flags.DEFINE_string("pack", None, "Packed teacher pack.", required=True)
_OUT = flags.DEFINE_string("out", None, "Folder for runs and tables.", required=True)
_VARIANT = flags.DEFINE_multi_enum(
    "variant", None, list(ablation.VARIANTS), "Repeat the flag for several; default all."
)
_SMOKE = flags.DEFINE_bool("smoke", True, "The 32 x 32 miniatures; --nosmoke trains at 512.")
_MOTION_STEPS = flags.DEFINE_integer("motion_steps", None, "Steps of the motion encoder alone.")
_STEPS = flags.DEFINE_integer("steps", None, "Steps of the avatar; default the config's.")
_RATE = flags.DEFINE_float("learning_rate", None, "Of Adam; default the config's.")
_LIMIT = flags.DEFINE_integer("limit", 32, "Test cases.", lower_bound=1)
_SPLIT = flags.DEFINE_enum("split", "test", ["train", "validation", "test", "all"], "Identities.")
_MOTION_ENCODER = flags.DEFINE_string("motion_encoder", None, "Weights of fan's motion encoder.")

SCORES = ("psnr", "lpips", "error_eyes_mouth")


def main(argv):
    if len(argv) > 1:
        raise cli.UserError(f"unexpected argument {argv[1]!r}; every option starts with --")
    out = pathlib.Path(_OUT.value)
    names = _VARIANT.value or [name for name in ablation.VARIANTS if name != "fan"]
    if _MOTION_ENCODER.value and "fan" not in names:
        names.append("fan")
    if "fan" in names and not _MOTION_ENCODER.value:
        raise cli.UserError("--variant=fan: give its weights by --motion_encoder=FOLDER")
    _check_pack(make_config(names[0]).model.image_size)
    rows = []
    for name in names:
        rows.append({"variant": name, **_train_and_score(name, out / name)})
        _write(out, rows)  # after each: nothing is lost if a later one fails
    print((out / "ablation.md").read_text())


def make_config(name: str):
    """The configuration of a variant with the flags applied."""
    config = ablation.get_config(f"{name},smoke" if _SMOKE.value else name)
    config.data.packs = (_PACK.value,)
    if _MOTION_STEPS.value is not None and config.motion_pretrain.steps:
        config.motion_pretrain.steps = _MOTION_STEPS.value
    if _STEPS.value is not None:
        ablation.shorten(config, _STEPS.value)
    if _RATE.value is not None:
        config.optimizer.learning_rate = _RATE.value
    return config


def _check_pack(image_size: int) -> None:
    """Raises PackError or ValueError before hours are spent if there will be no test cases."""
    from instant_gs.data import reader
    from instant_gs.evaluation import protocol

    pack = reader.open_pack(_PACK.value)
    next(protocol.cases(pack, _SPLIT.value, "cross", image_size=image_size, limit=1))


def _train_and_score(name: str, workdir: pathlib.Path) -> dict:
    import instant_gs
    from instant_gs.data import reader
    from instant_gs.evaluation import evaluator, score
    from instant_gs.training import loop

    config = make_config(name)
    began = time.perf_counter()
    given = _MOTION_ENCODER.value if name == "fan" else None
    loop.train(config, workdir, motion_encoder=given)
    seconds = time.perf_counter() - began
    options = evaluator.Options(
        split=_SPLIT.value, protocols=("cross",), limit=_LIMIT.value, identity=False, speed=False
    )
    scorers = [score.ImageScorer()]
    pack = reader.open_pack(_PACK.value)
    done = evaluator.evaluate(instant_gs.load(workdir), pack, options, scorers)
    part = done.result["protocols"]["cross"]
    scores = part["scores"]["moved"]
    ratio = part["ratios"].get("error_eyes_mouth")
    return {
        "steps": config.motion_pretrain.steps + config.train.steps,
        "cases": part["count"],
        "train_seconds": round(seconds, 1),
        "against_no_motion": ratio and ratio["ratio"],
        **{score: scores[score]["mean"] if score in scores else None for score in SCORES},
    }


def _write(out: pathlib.Path, rows: list[dict]) -> None:
    import jax

    from benchmarks import ablation_table, provenance

    command = shlex.join(["python", "-m", "benchmarks.ablation", *sys.argv[1:]])
    facts = {
        "command": command,
        "commit": provenance.commit(),
        "device": jax.devices()[0].device_kind,
    }
    provenance.write(out / "ablation.json", {**facts, "rows": rows})
    (out / "ablation.md").write_text(ablation_table.markdown(rows, facts), encoding="utf-8")


if __name__ == "__main__":
    cli.run(main)
