#!/bin/bash
# Trains on this host until the run is done: a run that was stopped and saved (exit code 75) goes on.
#
#   nohup launch/until_done.sh --distributed --config=configs/tpu.py --workdir=/mnt/runs/full \
#       --config.data.packs='("/mnt/packs/full",)' >>train.log 2>&1 &
#
# PYTHON chooses the interpreter.
until "${PYTHON:-.venv/bin/python}" train.py "$@"; do
    status=$?
    [ "$status" -eq 75 ] || exit "$status"
done
