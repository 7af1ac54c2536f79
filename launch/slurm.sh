#!/bin/bash
# Training on Slurm: one process a GPU, found by JAX through Slurm's own variables.
#
#   sbatch launch/slurm.sh --config=configs/gpu_8x.py --workdir=runs/full \
#       --config.data.packs='("packs/full",)'
#
# Everything behind the script's name goes to train.py. More nodes: sbatch --nodes=4 launch/slurm.sh
# and a --config.data.batch_size that all GPUs divide. PYTHON chooses the interpreter.
#
# Two minutes before its time is over training saves its step and exits with 75: the job then queues
# itself again and goes on. After a node's failure or a preemption Slurm does that.
#SBATCH --job-name=instant_gs
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
set -euo pipefail

cd "${SLURM_SUBMIT_DIR:-.}"
# Every process must see all GPUs of its node: JAX gives each its own.
status=0
export SRUN_CPUS_PER_TASK="${SLURM_CPUS_PER_TASK:-8}" # srun inherits none since 22.05
# --wait, not --kill-on-bad-exit: a process that has saved must not have the others killed meanwhile.
srun --kill-on-bad-exit=0 --wait=60 "${PYTHON:-.venv/bin/python}" train.py --distributed \
    --compilation_cache="${COMPILATION_CACHE:-runs/compiled}" "$@" || status=$?
if [ "$status" -eq 75 ]; then
    exec scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
