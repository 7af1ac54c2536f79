"""What hosts were told to train; those that differ would go on without a word.

Each host believes that its copy of the parameters is everybody's.
"""

import jax

from instant_gs import cli, version
from instant_gs.config import Config
from instant_gs.training import distributed, provenance, same_run


def check(config: Config, init_from: str | None, motion_encoder: str | None) -> None:
    """Refuses a start at which hosts run other code, or were told to train something else.

    All hosts call it together. Packs may lie elsewhere on each, if they hold the same.

    Args:
        config: As for ``loop.train``, as are the others.
        init_from: Weights that a fresh run starts from.
        motion_encoder: The same, for that part.

    Raises:
        UserError: Names what differs, and what it is on this host.
        PackError: A pack cannot be read.
    """
    if jax.process_count() == 1:
        return
    told = same_run.fields(config) | {"--init_from": init_from, "--motion_encoder": motion_encoder}
    with distributed.together():
        packs = provenance.packs(config).values()
    told["data.packs"] = [facts["content_sha256"] for facts in packs]
    code = {
        "jax": jax.__version__,
        "instant_gs": [version.__version__, version.commit(), sorted(told)],
    }
    for facts in (code, told):  # hosts with other code may not have the same fields
        if wrong := distributed.differing(facts):
            here = ", ".join(f"{name} ({str(facts[name])[:80]} here)" for name in wrong)
            raise cli.UserError(
                f"hosts differ in {here}; give all of them the same command, packages and packs"
            )
