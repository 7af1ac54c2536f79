"""The mean of several runs' weights, as a weights directory.

    python -m instant_gs.average --weights=runs/a,runs/b --out=weights/mean

For runs that started from the same weights and differ in seed, packs or rates: beside one another
they need no fast network, and their mean is often better than each ("model soups", Wortsman et al.,
arXiv 2203.05482). The mean of runs that started apart is noise.
"""

import copy
import os
import pathlib
from typing import Any

from absl import flags

from instant_gs import cli, output


def average(folders: list[str], out: str | os.PathLike) -> dict[str, Any]:
    """Writes the mean of parameters, each weighed the same; whole or not at all.

    Args:
        folders: Weights directories, or runs' folders, whose averaged parameters count. At least
            two, of one model.
        out: Must not exist yet. Its configuration is the first one's.

    Returns:
        The provenance that was recorded: each folder's own by its name, and all their licences.

    Raises:
        cli.UserError: Fewer than two folders, one twice, or ``out`` exists; or the models differ.
        FileNotFoundError: A folder holds no weights.
    """
    import jax

    from instant_gs.training import completeness, provenance, same_run, weights

    if len({pathlib.Path(folder).resolve() for folder in folders}) < max(len(folders), 2):
        raise cli.UserError(
            f"--weights={','.join(folders)}: give two or more different folders, with commas", 2
        )
    output.check_parents(out, option="--out")
    weights.check_new(out, "--out")
    loaded = [weights.load(folder) for folder in folders]
    config, first, _ = loaded[0]
    for folder, (other, params, _) in zip(folders, loaded, strict=True):
        differing = {
            name: pair
            for name, pair in same_run.changes(config, other).items()
            if name.startswith("model.") and name != "model.encoder.remat"
        }
        if differing:
            raise cli.UserError(
                f"--weights: {folder} is of another model than {folders[0]}: "
                f"{same_run.describe(differing)}; average runs of one model"
            )
        completeness.check_fits(first, params, f"--weights: {folder}")
    mean = jax.tree.map(lambda *same: sum(same) / len(same), *(one[1] for one in loaded))
    without_packs = copy.deepcopy(config)
    without_packs.data.packs = ()  # they need not be here; each folder's provenance names its own
    origins = {folder: facts for folder, (_, _, facts) in zip(folders, loaded, strict=True)}
    facts = provenance.record(without_packs, origins) | {"kind": "mean of weights"}
    weights.save(out, config, mean, facts)
    return facts


def main(argv):
    del argv
    given = flags.FLAGS
    for name in ("weights", "out"):
        if not given[name].value:
            raise cli.UserError(f"--{name} is missing (--help)", 2)
    average(given.weights, given.out)
    print(f"{given.out}: the mean of {len(given.weights)} weights")


def _define_flags() -> None:
    """Not at import: this module is a library, too, and other commands have an --out."""
    flags.DEFINE_list("weights", None, "Weights directories or runs' folders, with commas.")
    flags.DEFINE_string("out", None, "Weights directory to write; must not exist.")


if __name__ == "__main__":
    _define_flags()
    cli.run(main)
