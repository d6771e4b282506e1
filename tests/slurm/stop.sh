#!/usr/bin/env bash
# End the daemons that start.sh FOLDER started, and their jobs.
set -uo pipefail
folder=$(realpath -m "$1")
export SLURM_CONF=$folder/slurm.conf
timeout 10 scancel --user="$(id -un)" 2>/dev/null
for _ in $(seq 25); do
    [ -z "$(timeout 5 squeue --noheader 2>/dev/null)" ] && break
    sleep 0.2
done
for name in slurmd.pid slurmctld.pid munge/pid; do
    [ -s "$folder/$name" ] && kill "$(cat "$folder/$name")" 2>/dev/null
done
exit 0
