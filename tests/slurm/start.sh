#!/usr/bin/env bash
# A Slurm cluster of this machine alone, for the tests: munged, slurmctld and slurmd on the loopback, one node of two
# CPUs, two partitions of which `urgent` preempts `normal`. Needs root and Debian's packages (munge, slurmctld, slurmd,
# slurm-client), but neither systemd nor control groups, nor accounting.
#
#   tests/slurm/start.sh FOLDER    then   export SLURM_CONF=FOLDER/slurm.conf
#
# FOLDER takes the configuration, the state and the logs; stop.sh FOLDER ends the daemons. SLURM_TEST_PORT is the first of
# two ports, SLURM_TEST_ARRAY the size of the largest array, three for the tests.
set -euo pipefail
folder=$(realpath -m "$1")
for program in munged slurmctld slurmd; do
    command -v "$program" >/dev/null || { echo "there is no $program: install munge, slurmctld and slurmd" >&2; exit 3; }
done
[ "$(id -u)" = 0 ] || { echo "slurmd runs jobs as their user: it needs root" >&2; exit 3; }
mkdir -p "$folder"/{munge,state,spool,log}
chmod 755 "$folder"
host=$(hostname -s)
port=${SLURM_TEST_PORT:-16817}

# a munge of its own: another one of the machine is left alone
head -c 1024 /dev/urandom >"$folder/munge/key"
chmod 700 "$folder/munge"
chmod 600 "$folder/munge/key"
socket=$folder/socket
munged --force --key-file="$folder/munge/key" --socket="$socket" --pid-file="$folder/munge/pid" \
    --log-file="$folder/munge/log" --seed-file="$folder/munge/seed"

cat >"$folder/slurm.conf" <<CONF
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$port
SlurmdPort=$((port + 1))
SlurmUser=root
AuthType=auth/munge
# a requeued job waits for cred_expire seconds before it starts again
AuthInfo=socket=$socket,cred_expire=5
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2,batch_sched_delay=0,sched_min_interval=100000
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
KillWait=20
InactiveLimit=0
MinJobAge=60
ReturnToService=2
SlurmdTimeout=60
MaxArraySize=${SLURM_TEST_ARRAY:-3}
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/log/slurmctld
SlurmdLogFile=$folder/log/slurmd
SlurmctldParameters=enable_configless
SlurmdParameters=config_overrides
NodeName=$host NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=normal Nodes=$host Default=YES MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=REQUEUE
PartitionName=urgent Nodes=$host MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
CONF
export SLURM_CONF=$folder/slurm.conf
slurmctld -f "$SLURM_CONF"
slurmd -f "$SLURM_CONF" -N "$host"
for _ in $(seq 600); do
    if [ "$(sinfo --noheader --partition=normal --format=%T 2>/dev/null)" = idle ]; then
        echo "$SLURM_CONF"
        exit 0
    fi
    sleep 0.2
done
echo "the node did not come up" >&2
tail -n 20 "$folder"/log/* >&2
exit 1
