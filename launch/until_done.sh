#!/bin/bash
# Trains on this host until the run is done: a run that was stopped and saved (exit code 75) goes on.
#
#   nohup launch/until_done.sh --distributed --config=configs/tpu.py --workdir=/mnt/runs/full \
#       --config.data.packs='("/mnt/packs/full",)' >>train.log 2>&1 &
#
# SIGTERM to this script (pkill -TERM -f until_done.sh, on every host) ends it for good: training saves
# its step first. PYTHON chooses the interpreter.
stopped=
trap 'stopped=1; kill -TERM "$child"' TERM INT
while true; do
    "${PYTHON:-.venv/bin/python}" train.py "$@" &
    child=$!
    wait "$child"
    status=$?
    if [ "$stopped" ]; then # the signal ended that wait
        wait "$child"
        exit $?
    fi
    [ "$status" -eq 75 ] || exit "$status"
done
