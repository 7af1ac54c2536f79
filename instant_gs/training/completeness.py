"""Whether parameters are all that a model needs, and fit it."""

import jax

from instant_gs import cli, models
from instant_gs.config import ModelConfig

OTHER_VERSION = (
    "another version of instant_gs made it (provenance.json says which): use that, or train anew"
)
_LISTED = 3  # names in a message


def check_weights(config: ModelConfig, params: dict, origin: str) -> None:
    """Refuses weights that their own configuration's model cannot use.

    Args:
        config: The configuration stored with them.
        params: The parameters; "motion_encoder" may be absent (``instant_gs.convert``).
        origin: Where they come from, for the error.

    Raises:
        UserError: Names the missing parts.
    """
    wanted = jax.eval_shape(models.build(config).init, jax.random.key(0))
    if "motion_encoder" not in params:
        del wanted["motion_encoder"]
    check(wanted, params, origin, OTHER_VERSION)


def check(wanted: dict, params: dict, origin: str, fix: str) -> None:
    """Refuses parameters that lack what a model needs.

    Args:
        wanted: The model's parameters or their shapes.
        params: Those that are there, or their shapes.
        origin: Where they come from, for the error.
        fix: What to do about it, for the error.

    Raises:
        UserError: Names the missing parts.
    """
    missing = list(_missing(wanted, params))
    if missing:
        more = f" and {len(missing) - _LISTED} more" if len(missing) > _LISTED else ""
        names = ", ".join(missing[:_LISTED]) + more
        raise cli.UserError(f"{origin}: lacks parameters that the model needs: {names}; {fix}")


def check_fits(wanted: dict, params: dict, origin: str) -> None:
    """Refuses parameters of another model than a configuration's.

    Args:
        wanted: Its parameters or their shapes.
        params: Those that come from elsewhere.
        origin: As above.

    Raises:
        UserError: Parameters are missing.
        ValueError: Names or shapes differ.
    """
    fix = "use the configuration it was made with"
    check(wanted, params, origin, f"{fix}; if this is that one, {OTHER_VERSION}")
    want, have = _shapes(wanted), _shapes(params)
    differing = sorted(name for name in want | have if want.get(name) != have.get(name))
    if differing:
        raise ValueError(
            f"{origin}: {len(differing)} parameters differ in name or shape from this "
            f"configuration's model, first {differing[0]}; {fix}"
        )


def _shapes(tree) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): leaf.shape for path, leaf in leaves}


def _missing(wanted: dict, params: dict, path: str = ""):
    """Names of missing parts; a group that is missing whole counts as one."""
    for name, part in wanted.items():
        inner = isinstance(part, dict)
        if name not in params or (inner and not params[name]):
            yield path + name
        elif inner:
            yield from _missing(part, params[name], f"{path}{name}.")
