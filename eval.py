"""Evaluates weights on a packed teacher pack and writes an HTML report with a JSON beside it.

    python eval.py --weights=runs/demo --pack=packs/test --split=test --out=reports/demo

The configuration comes from the weights, so an evaluation cannot drift from its training.
"""

import functools

from absl import flags

from instant_gs import cli

_WEIGHTS = flags.DEFINE_string("weights", None, "Weights or run; default: small, which ships.")
_PACK = flags.DEFINE_string("pack", None, "Packed teacher pack.", required=True)
_OUT = flags.DEFINE_string("out", None, "Folder for report.html and report.json.", required=True)
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Replace an earlier report in --out.")
_SPLIT = flags.DEFINE_enum("split", "test", ["train", "validation", "test", "all"], "Identities.")
_PROTOCOL = flags.DEFINE_multi_enum(
    "protocol", ["self", "cross"], ["self", "cross"], "Repeat the flag for several; default both."
)
_LIMIT = flags.DEFINE_integer("limit", 64, "Cases a protocol.", lower_bound=1)
_SEED = flags.DEFINE_integer("seed", 0, "Chooses the cases.", lower_bound=0)
_SIZE = flags.DEFINE_integer(
    "size", None, "Side of scored pictures; default and least: the model's.", lower_bound=1
)
_CAPACITY = flags.DEFINE_integer(
    "capacity",
    0,
    "How often Gaussians may touch a tile in one picture; 0: enough for the weights that ship. The "
    "evaluation stops where some are missing, and says what helps.",
    lower_bound=0,
)
_CULLING = flags.DEFINE_enum(
    "culling", None, ["envelope", "source", "none"], "Gaussians an avatar keeps [envelope]."
)
_VGG = flags.DEFINE_bool("vgg", False, "Also LPIPS with VGG16 (slow on a CPU).")
_IDENTITY = flags.DEFINE_bool("identity", True, "Score identity with dlib.")
_SPEED = flags.DEFINE_bool("speed", True, "Time encode, animate and render.")


def main(argv):
    del argv
    import tqdm

    import instant_gs
    from instant_gs.data import reader
    from instant_gs.evaluation import evaluator, reenactment, report

    report.check_out(_OUT.value, overwrite=_OVERWRITE.value)
    options = evaluator.Options(
        split=_SPLIT.value,
        protocols=tuple(dict.fromkeys(_PROTOCOL.value)),
        limit=_LIMIT.value,
        seed=_SEED.value,
        lpips_networks=("alexnet", "vgg") if _VGG.value else ("alexnet",),
        identity=_IDENTITY.value,
        speed=_SPEED.value,
    )
    pack = reader.Pack(_PACK.value)
    evaluator.check(pack, options)
    model = instant_gs.load(_WEIGHTS.value or None)
    if _CULLING.value:
        model = model.with_culling(_CULLING.value)
    if _CAPACITY.value:
        model = model.with_capacity(_CAPACITY.value)
    seen = reenactment.Enlarged(model, _SIZE.value or model.image_size)
    evaluator.check_model(pack, seen)
    about = evaluator.describe(model, _WEIGHTS.value)
    show = functools.partial(tqdm.tqdm, unit="case")
    with evaluator.default_scorers(options) as scorers:
        done = evaluator.evaluate(seen, pack, options, scorers, about=about, progress=show)
    page = report.write(_OUT.value, done, overwrite=_OVERWRITE.value)
    print(report.text_summary(done.result))
    print(f"report: {page}")


if __name__ == "__main__":
    cli.run(main)
