#!/usr/bin/env bash
# A Slurm cluster of one node, this machine, for tests: munged, slurmctld and slurmd, as root, on 127.0.0.1, with
# every file in one folder. Needs Debian's packages slurmctld, slurmd, slurm-client and munge (or slurm-wlm).
#   test/slurm_single_node.sh start FOLDER   prints the value for SLURM_CONF, or why there is no cluster (exit status 1)
#   test/slurm_single_node.sh stop FOLDER
set -u
action=${1-} folder=${2-}
[ -n "$folder" ] || { echo "usage: test/slurm_single_node.sh start|stop FOLDER" >&2; exit 2; }
PATH=$PATH:/usr/sbin:/sbin

stop() { # only what start began: the process ids are those in this folder
    local daemon pid
    for daemon in slurmd slurmctld munged; do
        pid=$(cat "$folder/$daemon.pid" 2>/dev/null) || continue
        [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = "$daemon" ] || continue
        kill "$pid"
        for _ in $(seq 100); do [ ! -e "/proc/$pid" ] || sleep 0.1; done
    done
}

give_up() { echo "$*"; stop; exit 1; }

start() {
    local tool host port
    for tool in munged slurmctld slurmd sbatch sinfo python3; do
        command -v $tool >/dev/null || give_up "$tool was not found"
    done
    [ "$(id -u)" -eq 0 ] || give_up "slurmd needs root"
    mkdir -p "$folder"/{state,spool} || give_up "$folder can't be written"
    chmod 755 "$folder"
    cd "$folder" || give_up "$folder can't be entered"
    folder=$PWD host=$(hostname -s)
    read -r -a port < <(python3 -c 'import socket
s = [socket.socket() for _ in range(2)]
for x in s: x.bind(("127.0.0.1", 0))
print(*(x.getsockname()[1] for x in s))')
    cat >slurm.conf <<CONF
ClusterName=single
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=${port[0]}
SlurmdPort=${port[1]}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$folder/munge.socket
CredType=cred/munge
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SchedulerType=sched/builtin
SchedulerParameters=batch_sched_delay=0,sched_min_interval=0,sched_interval=1
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
NodeName=$host NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=test Nodes=$host Default=YES MaxTime=10 State=UP
CONF
    export SLURM_CONF=$folder/slurm.conf
    (umask 077 && head -c 1024 /dev/urandom >munge.key)
    munged --force --key-file="$folder/munge.key" --socket="$folder/munge.socket" --pid-file="$folder/munged.pid" \
        --log-file="$folder/munged.log" --seed-file="$folder/munged.seed" >munged.out 2>&1 ||
        give_up "munged: $(tail -n 1 munged.out)"
    slurmctld -c >slurmctld.out 2>&1 || give_up "slurmctld: $(tail -n 1 slurmctld.out)"
    slurmd >slurmd.out 2>&1 || give_up "slurmd: $(tail -n 1 slurmd.out)"
    for _ in $(seq 100); do
        case $(sinfo --noheader --format=%T 2>/dev/null) in idle) break ;; *) sleep 0.2 ;; esac
    done
    [ "$(sinfo --noheader --format=%T 2>/dev/null)" = idle ] ||
        give_up "the node did not become idle: $(tail -qn 1 slurmctld.log slurmd.log | tr '\n' ' ')"
    echo "$SLURM_CONF"
}

case $action in
start) start ;;
stop) stop ;;
*) echo "test/slurm_single_node.sh: expected start or stop, found $action" >&2; exit 2 ;;
esac
