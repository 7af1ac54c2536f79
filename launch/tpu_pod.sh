#!/bin/bash
# Training on a Cloud TPU slice: the same command on every host, started from your own machine.
#
#   TPU=my-slice ZONE=us-east5-b launch/tpu_pod.sh --config=configs/tpu.py \
#       --workdir=/mnt/runs/full --config.data.packs='("/mnt/packs/full",)'
#
# Every host needs this repository in ~/instant_gs with its environment (pip install .[tpu] in
# .venv), and packs and --workdir on storage that all hosts see under one path. Training goes on when
# this command has ended: train.log in ~/instant_gs of each host says how far it is, and
# `pkill -TERM -f until_done.sh` on every host stops it. A slice that was taken away and is there again
# resumes by the same command.
set -euo pipefail

: "${TPU:?set TPU to the name of the slice}" "${ZONE:?set ZONE to its zone}"
command="cd instant_gs && nohup launch/until_done.sh --distributed"
exec gcloud compute tpus tpu-vm ssh "$TPU" --zone="$ZONE" --worker=all \
    --command="$command$(printf ' %q' "$@") >>train.log 2>&1 </dev/null &"
