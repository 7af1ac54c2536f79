#!/bin/bash
# Training on a Cloud TPU slice: the same command on every host, started from your own machine.
#
#   TPU=my-slice ZONE=us-east5-b launch/tpu_pod.sh --config=configs/tpu.py \
#       --workdir=/mnt/runs/full --config.data.packs='("/mnt/packs/full",)'
#
# Every host needs this repository in ~/instant_gs with its environment (pip install .[tpu] in
# .venv), and packs and --workdir on storage that all hosts see under one path.
set -euo pipefail

: "${TPU:?set TPU to the name of the slice}" "${ZONE:?set ZONE to its zone}"
command="cd instant_gs && .venv/bin/python train.py --distributed"
exec gcloud compute tpus tpu-vm ssh "$TPU" --zone="$ZONE" --worker=all \
    --command="$command$(printf ' %q' "$@")"
