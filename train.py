"""Trains an avatar model from teacher packs.

    python train.py --config=configs/demo.py --workdir=runs/demo --config.data.packs='("packs/a",)'

Runs again with the same --workdir to resume. Any field of the configuration can be set on the
command line; ``--config=configs/demo.py:smoke`` shrinks it to a test. ``--dry_run`` says what would
happen. Several hosts run the same command, see launch/.
"""

import signal

from absl import flags
from ml_collections import config_flags

from instant_gs import cli

_CONFIG = config_flags.DEFINE_config_file("config", None, "File with get_config(arg).")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run; resumed if it holds one.")
_INIT_FROM = flags.DEFINE_string("init_from", None, "Weights or run a fresh run starts from.")
_MOTION_ENCODER = flags.DEFINE_string("motion_encoder", None, "The same, for that part alone.")
_DISTRIBUTED = flags.DEFINE_bool(
    "distributed", False, "One of several processes; the cluster (Slurm, TPU pod) says which."
)
_COORDINATOR = flags.DEFINE_string("coordinator", None, "host:port of process 0, if it cannot.")
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "How many processes there are.")
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "Which one this is, from 0.")
_CACHE = flags.DEFINE_string("compilation_cache", None, "Folder that keeps compiled steps.")
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "Say what would happen; train and write nothing.")
_PROFILE = flags.DEFINE_string("profile_steps", None, "Steps to profile: first,last, as 10,15.")


def main(argv):
    del argv
    if _DRY_RUN.value:
        # It leaves nothing to remove, and Python may crash if it ends while XLA compiles.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    import jax

    from instant_gs.training import distributed, dry_run, loop, profile

    window = profile.parse(_PROFILE.value)
    if _CACHE.value:
        jax.config.update("jax_compilation_cache_dir", _CACHE.value)
    distributed.start(
        _DISTRIBUTED.value, _COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value
    )
    what = _CONFIG.value, _WORKDIR.value, _INIT_FROM.value, _MOTION_ENCODER.value
    if _DRY_RUN.value:
        for line in dry_run.describe(*what):
            distributed.say(line)
        return
    loop.train(*what, window)


if __name__ == "__main__":
    flags.mark_flags_as_required(["config", "workdir"])
    cli.run(main)
