"""A run's weights, or the mean of several runs', as a weights directory.

    python -m instant_gs.average --weights=runs/a --out=weights/a
    python -m instant_gs.average --weights=runs/a,runs/b --out=weights/mean

A mean is for runs that started from the same weights and differ in seed, packs or rates: a uniform
"model soup", which Wortsman et al. (arXiv 2203.05482) found better than single runs. The mean of
runs that started apart is noise. Like every release it is rounded to bfloat16; motion codes that
lie beside converted weights are not taken over, and made anew where they are needed.
"""

import os
import sys
from typing import Any

from absl import flags

from instant_gs import cli, output
from instant_gs import config as config_lib


def average(folders: list[str], out: str | os.PathLike) -> dict[str, Any]:
    """Writes the mean of parameters, each weighed the same, or one folder's; whole or not at all.

    Args:
        folders: Weights directories, runs' folders, whose averaged parameters count, or names of
            shipped weights; all of one model.
        out: Must not exist yet. Its configuration is the first one's.

    Returns:
        The provenance that was recorded: of one folder its own, of several each one's own under
        "mean_of", and all licences.

    Raises:
        cli.UserError: No folder, or one twice; ``out`` exists or cannot be written;
            the models differ; parameters are not finite.
        FileNotFoundError: A folder holds no weights.
        ValueError: Parameters differ in name or shape.
    """
    import jax
    import jax.numpy as jnp

    from instant_gs.training import completeness, provenance, same_run, weights

    distinct = {weights.find(folder).resolve() for folder in folders if folder}
    if len(distinct) < max(len(folders), 1):
        raise cli.UserError(
            f"--weights={','.join(folders)}: give one folder or different ones, with commas", 2
        )
    output.check_parents(out, option="--out")
    weights.check_new(out, "--out")
    configs, params, facts = zip(*(weights.load(folder) for folder in folders), strict=True)
    for folder, config, tree in zip(folders, configs, params, strict=True):
        differing = [
            f"{name} is {ours!r} in {folders[0]} and {theirs!r} in {folder}"
            for name, (ours, theirs) in same_run.changes(configs[0], config).items()
            if name.startswith("model.") and name != "model.encoder.remat"
        ]
        if differing:
            raise cli.UserError(f"--weights: of different models: {', '.join(differing)}")
        completeness.check_fits(params[0], tree, f"--weights: {folder}")
        if not all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(tree)):
            raise cli.UserError(f"--weights: {folder}: parameters are not finite")
    if len(folders) == 1:
        weights.save(out, configs[0], params[0], facts[0])
        return facts[0]
    starts = [one.get("init_from") for one in facts]
    if None in starts or any(start != starts[0] for start in starts):
        print(
            "warning: these weights did not start from the same ones (provenance.json, init_from); "
            "the mean of what started apart is noise",
            file=sys.stderr,
        )
    mean = jax.tree.map(lambda *same: sum(same) / len(same), *params)
    # Of no packs: they need not be here, and each folder's provenance names its own.
    record = provenance.record(config_lib.Config()) | provenance.joined_licences(facts)
    record["mean_of"] = [{"folder": f} | one for f, one in zip(folders, facts, strict=True)]
    weights.save(out, configs[0], mean, record)
    return record


def main(argv):
    del argv
    given = flags.FLAGS
    for name in ("weights", "out"):
        if not given[name].value:
            raise cli.UserError(f"--{name} is missing (--help)", 2)
    facts, several = average(given.weights, given.out), len(given.weights) > 1
    parts = facts["mean_of"] if several else [facts | {"folder": given.weights[0]}]
    steps = ", ".join(f"{part['folder']} (step {part.get('step', 'unknown')})" for part in parts)
    print(f"{given.out}: {'the mean' if several else 'the weights'} of {steps}")


def _define_flags() -> None:
    """Not at import: this module is a library, too, and other commands have an --out."""
    flags.DEFINE_list("weights", None, "Weights directories or runs, with commas.")
    flags.DEFINE_string("out", None, "Weights directory to write; must not exist.")


if __name__ == "__main__":
    _define_flags()
    cli.run(main)
