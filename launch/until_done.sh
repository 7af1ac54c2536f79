#!/bin/bash
# Trains on this host until the run is done: a run that was stopped and saved (exit code 75) goes on.
#
#   nohup launch/until_done.sh --distributed --config=configs/tpu.py --workdir=/mnt/runs/full \
#       --config.data.packs='("/mnt/packs/full",)' >>train.log 2>&1 &
#
# SIGTERM to this script (pkill -TERM -f until_done.sh, on every host) ends it for good: training saves
# its step first. PYTHON chooses the interpreter.
stopped=
trap 'stopped=1; [ -z "$child" ] || kill -TERM "$child"' TERM INT
while true; do
    child=
    "${PYTHON:-.venv/bin/python}" train.py "$@" &
    child=$!
    [ -z "$stopped" ] || kill -TERM "$child" # the signal came before there was whom to pass it to
    wait "$child"
    status=$?
    if [ "$status" -gt 128 ]; then # a signal ended that wait, or the run itself
        wait "$child" 2>/dev/null
        again=$?
        [ "$again" -eq 127 ] || status=$again
    fi
    [ -z "$stopped" ] && [ "$status" -eq 75 ] || exit "$status"
done
