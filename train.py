"""Trains an avatar model from teacher packs.

    python train.py --config=configs/demo.py --workdir=runs/demo --config.data.packs='("packs/a",)'

Runs again with the same --workdir to resume. Any field of the configuration can be set on the
command line; ``--config=configs/demo.py:smoke`` shrinks it to a test.
"""

from absl import flags
from ml_collections import config_flags

from instant_gs import cli

_CONFIG = config_flags.DEFINE_config_file("config", None, "File with get_config(arg).")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; resumed if it holds one.")
_RELEASE = flags.DEFINE_string("release", None, "Write the final weights (bfloat16) here.")
_INIT_FROM = flags.DEFINE_string("init_from", None, "Weights or run a fresh run starts from.")
_MOTION_ENCODER = flags.DEFINE_string("motion_encoder", None, "The same, for that part alone.")
_DISTRIBUTED = flags.DEFINE_bool("distributed", False, "Call jax.distributed.initialize().")


def main(argv):
    if len(argv) > 1:
        raise cli.UserError(f"unexpected argument {argv[1]!r}; every option starts with --")
    import jax

    from instant_gs.training import checkpoint, loop

    if _DISTRIBUTED.value:
        jax.distributed.initialize()
    config = _CONFIG.value
    loop.train(config, _WORKDIR.value, _INIT_FROM.value, _MOTION_ENCODER.value)
    if _RELEASE.value:
        config, params, run = checkpoint.load_weights(_WORKDIR.value)
        checkpoint.save_weights(_RELEASE.value, config, params, run)


if __name__ == "__main__":
    flags.mark_flags_as_required(["config", "workdir"])
    cli.run(main)
