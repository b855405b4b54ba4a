#!/usr/bin/env bash
# tests/slurm/cluster.sh: a real, private, multi-node SLURM on one machine, for growpoint's tests.
# Written for SLURM 22.05 as Debian 12 packages it.  Needs root; needs no systemd, and no network once installed.
#
#   cluster.sh install                      install the Debian packages that are missing
#   cluster.sh start [options]              write the configuration, start every daemon, wait until usable
#       --nodes N               fake nodes n1..nN                                        (2)
#       --cpus-per-node C       CPUs each node claims (more than the host has is fine)   (4)
#       --mem-per-node MB       memory each node claims                                  (16000)
#       --gpus-per-node G       fake GPUs on each node                                   (2)
#       --gpu-type NAME         type of the GPUs, so that --gres=gpu:NAME:1 works        (h200)
#       --auth munge|none       authentication; munge runs a private munged              (munge)
#       --no-db                 no MariaDB and no slurmdbd: sacct answers "disabled"
#       --no-ns                 do not put nodes in their own namespaces
#       --cgroup auto|on|off    track processes and enforce memory with cgroup v1 (jobs die whole, OOM is real);
#                               else by parentage and polling                            (auto: on where writable)
#       --requeue-wait S        seconds a requeued job is held back (SLURM's default: 120)  (5)
#       --set KEY=VALUE         set or replace one global line of slurm.conf (repeatable)
#       --keep                  keep the state and database of an earlier start of this box
#   cluster.sh stop [--wipe]                stop everything by pid file [and delete the box]
#   cluster.sh status                       daemons, nodes, queue; exit 0 only when all is up
#   cluster.sh env                          print export lines: eval "$(tests/slurm/cluster.sh env)"
#   cluster.sh kill-node NAME [--no-wait|--down]   SIGKILL everything on a node; wait until SLURM says DOWN
#                                           (25-30 s; at once with --down: marked by the admin)
#   cluster.sh restore-node NAME            start the node again; wait until it is usable
#   cluster.sh kill-daemon D [--hard]       D: slurmctld slurmdbd mariadbd munged (TERM; --hard: KILL), slurmd@NAME
#   cluster.sh restore-daemon D             (slurmd@NAME: only the daemon; its jobs live on)
#
# Everything (configuration, spool, logs, database, sockets, pid files) lies under $SLURM_BOX (default
# /tmp/growpoint-slurm); outside it only the kernel's cgroup directories, gone after stop.  Daemons are found by
# pid file only, and only signalled when the process still is the one that was started.
set -euo pipefail

BOX=${SLURM_BOX:-/tmp/growpoint-slurm}
BOX=${BOX%/}
case $BOX in /*) ;; *) BOX=$PWD/$BOX ;; esac
SELF=$(realpath "$0")
cd /
ETC=$BOX/etc RUN=$BOX/run LOG=$BOX/log SPOOL=$BOX/spool DB=$BOX/db STATE=$BOX/state DEV=$BOX/dev
MARK=$BOX/.growpoint-slurm
SETTINGS=$ETC/box.env
export PATH=/usr/sbin:/sbin:$PATH

say() { printf 'slurm cluster: %s\n' "$*" >&2; }
die() { say "ERROR: $*"; exit 1; }
now() { date +%s.%N; }
since() { awk -v a="$1" -v b="$(now)" 'BEGIN{printf "%.2f", b-a}'; }

# wait_for SECONDS WHAT COMMAND...: poll 20 times a second
wait_for() {
    local limit=$1 what=$2 end; shift 2
    end=$(( $(date +%s) + limit ))
    until "$@" >/dev/null 2>&1; do
        [ "$(date +%s)" -lt "$end" ] || { say "gave up after ${limit}s waiting for $what"; return 1; }
        sleep 0.05
    done
}

# ---------------------------------------------------------------- processes
# A pid file of ours holds "PID STARTTIME": the start time (field 22 of stat) tells a reused pid apart.
starttime() { local s; s=$(cat "/proc/$1/stat" 2>/dev/null) || return 1; s=${s##*) }; set -- $s; echo "${20}"; }
remember() { echo "$2 $(starttime "$2")" >"$RUN/$1.pid"; }
pid_of() {
    local pid start
    [ -s "$RUN/$1.pid" ] || return 1
    read -r pid start <"$RUN/$1.pid" || return 1
    [ "$(starttime "$pid")" = "$start" ] || return 1
    # a zombie is dead
    ! grep -q '^State:[[:space:]]*Z' "/proc/$pid/status" 2>/dev/null || return 1
    echo "$pid"
}
alive() { pid_of "$1" >/dev/null; }
gone() { ! alive "$1"; }
# stop_pid NAME SECONDS: TERM, wait, then KILL
stop_pid() {
    local pid
    if pid=$(pid_of "$1"); then
        kill -TERM "$pid" 2>/dev/null || true
        wait_for "$2" "$1 to stop" gone "$1" || { kill -KILL "$pid" 2>/dev/null || true; wait_for 5 "$1" gone "$1" || true; }
    fi
    rm -f "$RUN/$1.pid"
}
# daemonise NAME LOGFILE COMMAND...: start in its own session, remember the pid
daemonise() {
    local name=$1 log=$2; shift 2
    (cd "$LOG" && exec setsid "$@" >>"$log" 2>&1 </dev/null) &   # a core dump lands in the box
    local pid=$!
    disown "$pid" 2>/dev/null || true
    # setsid execs in place when it is not a group leader (a background child of a script is not)
    remember "$name" "$pid"
}

# ---------------------------------------------------------------- install
cmd_install() {
    local t0 need=() p
    for p in slurmctld slurmd slurm-client slurmdbd slurm-wlm-mysql-plugin munge mariadb-server-core mariadb-client-core; do
        [ "$(dpkg-query -W -f='${db:Status-Status}' "$p" 2>/dev/null)" = installed ] || need+=("$p")
    done
    [ ${#need[@]} -gt 0 ] || { say "packages: all present"; return 0; }
    [ "$(id -u)" = 0 ] || die "install needs root (missing: ${need[*]})"
    t0=$(now)
    local log; log=$(mktemp /tmp/growpoint-slurm-install.XXXXXX)
    export DEBIAN_FRONTEND=noninteractive
    local opt=(-y -q --no-install-recommends -o Dpkg::Options::=--force-confold -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=120)
    # no service may start: SLURM and MariaDB run privately, by hand.  RUNLEVEL=1 makes invoke-rc.d skip starts.
    RUNLEVEL=1 apt-get install "${opt[@]}" "${need[@]}" >"$log" 2>&1 || {
        apt-get update -q >>"$log" 2>&1
        RUNLEVEL=1 apt-get install "${opt[@]}" "${need[@]}" >>"$log" 2>&1 || {
            tail -30 "$log" >&2; die "apt-get install failed: ${need[*]}"; }
    }
    rm -f "$log"
    say "installed ${need[*]} in $(since "$t0")s"
}

# ---------------------------------------------------------------- configuration
port_busy() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }   # a client asking too early would sleep for seconds
port_free() { ! port_busy "$1"; }
pick_ports() { # a free block below the ephemeral range
    local base i ok
    for _ in $(seq 100); do
        base=$(( 20000 + (RANDOM % 600) * 20 )); ok=1
        for i in $(seq 0 $(( NODES + 2 ))); do port_free $(( base + i )) || { ok=0; break; }; done
        [ $ok = 0 ] || { echo $base; return; }
    done
    die "no free block of ports"
}

write_conf() {
    local base=$1 i n f
    CTLPORT=$base DBDPORT=$(( base + 1 ))
    cat >"$SETTINGS" <<EOF
NODES=$NODES CPUS=$CPUS MEM=$MEM GPUS=$GPUS GPUTYPE=$GPUTYPE AUTH=$AUTH USEDB=$USEDB USENS=$USENS USECG=$USECG CREDEXP=$CREDEXP CTLPORT=$CTLPORT DBDPORT=$DBDPORT
EOF
    # cred_expire is also how long a requeued job is held back (SLURM's default: 120 s)
    local authinfo="" ctlauth="AuthInfo=cred_expire=$CREDEXP"
    [ "$AUTH" = none ] || { authinfo="AuthInfo=socket=$RUN/munge.socket"; ctlauth="$authinfo,cred_expire=$CREDEXP"; }
    {
        cat <<EOF
# written by cluster.sh; lost at the next start
ClusterName=box
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort=$CTLPORT
SlurmUser=root
SlurmdUser=root
AuthType=auth/$AUTH
CredType=cred/$AUTH
$ctlauth
# one machine, loopback only
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
MpiDefault=none
MailProg=/bin/true
StateSaveLocation=$STATE
SlurmdSpoolDir=$SPOOL/%n
SlurmctldPidFile=$RUN/slurmctld.own.pid
SlurmdPidFile=$RUN/slurmd-%n.own.pid
SlurmctldLogFile=$LOG/slurmctld.log
SlurmdLogFile=$LOG/slurmd-%n.log
SlurmctldDebug=info
SlurmdDebug=info
# nodes may claim more CPUs and memory than the machine has
SlurmdParameters=config_overrides
ReturnToService=2
# failures are noticed fast
SlurmdTimeout=10
SlurmctldTimeout=10
MessageTimeout=10
BatchStartTimeout=10
KillWait=5
InactiveLimit=0
WaitTime=0
MinJobAge=300
UnkillableStepTimeout=300
JobRequeue=1
# scheduling: as soon as possible
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=2,sched_min_interval=0,bf_interval=1,bf_min_age_reserve=0,bf_continue,default_queue_depth=1000,bf_max_job_test=1000,partition_job_depth=1000
PriorityType=priority/basic
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU=256
EnforcePartLimits=ALL
MaxArraySize=100001
MaxJobCount=200000
# preemption by partition
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
PreemptExemptTime=0
EOF
        if [ "$USECG" = 1 ]; then
            cat <<EOF
ProctrackType=proctrack/cgroup
TaskPlugin=task/cgroup
JobAcctGatherType=jobacct_gather/cgroup
JobAcctGatherFrequency=task=2
EOF
        else
            cat <<EOF
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill,UsePss
EOF
        fi
        if [ "$USEDB" = 1 ]; then
            cat <<EOF
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort=$DBDPORT
AccountingStorageEnforce=associations,limits,qos
AccountingStoreFlags=job_comment
EOF
            # with a private munged, clients reach slurmdbd with this socket, not with AuthInfo's
            [ "$AUTH" = none ] || echo "AccountingStoragePass=$RUN/munge.socket"
            [ "$GPUS" = 0 ] || echo "AccountingStorageTRES=gres/gpu"
        else
            echo "AccountingStorageType=accounting_storage/none"
        fi
        [ "$GPUS" = 0 ] || echo "GresTypes=gpu"
    } >"$ETC/slurm.conf"
    local kv key
    for kv in ${SETS[@]+"${SETS[@]}"}; do
        key=${kv%%=*}
        grep -vi "^$key=" "$ETC/slurm.conf" >"$ETC/slurm.conf.new"
        [ -z "${kv#*=}" ] || echo "$kv" >>"$ETC/slurm.conf.new"
        mv "$ETC/slurm.conf.new" "$ETC/slurm.conf"
    done
    {
        for i in $(seq "$NODES"); do
            n=n$i
            printf 'NodeName=%s NodeHostname=%s NodeAddr=127.0.0.1 Port=%s CPUs=%s RealMemory=%s' \
                "$n" localhost $(( base + 1 + i )) "$CPUS" "$MEM"
            [ "$GPUS" = 0 ] || printf ' Gres=gpu:%s:%s' "$GPUTYPE" "$GPUS"
            printf ' State=UNKNOWN\n'
        done
        # gpu: the usual one.  preempt: loses its nodes to gpu.  grace: the same, with 20 s of warning.
        # short: at most 1 minute.  All over the same nodes.
        echo "PartitionName=gpu     Nodes=ALL Default=YES MaxTime=INFINITE DefaultTime=10 PriorityTier=10 PreemptMode=OFF State=UP"
        echo "PartitionName=preempt Nodes=ALL MaxTime=INFINITE DefaultTime=10 PriorityTier=1 PreemptMode=REQUEUE State=UP"
        echo "PartitionName=grace   Nodes=ALL MaxTime=INFINITE DefaultTime=10 PriorityTier=1 PreemptMode=REQUEUE GraceTime=20 State=UP"
        echo "PartitionName=short   Nodes=ALL MaxTime=1 DefaultTime=1 PriorityTier=10 PreemptMode=OFF State=UP"
    } >>"$ETC/slurm.conf"

    : >"$ETC/gres.conf"
    if [ "$GPUS" != 0 ]; then
        echo "AutoDetect=off" >>"$ETC/gres.conf"
        for i in $(seq "$NODES"); do
            n=n$i; mkdir -p "$DEV/$n"
            for f in $(seq 0 $(( GPUS - 1 ))); do
                # slurmd wants a character device, and takes its number from the name; a link to one will do
                ln -sfn /dev/null "$DEV/$n/nvidia$f"
            done
            f=0; [ "$GPUS" = 1 ] || f="[0-$(( GPUS - 1 ))]"
            echo "NodeName=$n Name=gpu Type=$GPUTYPE File=$DEV/$n/nvidia$f Flags=nvidia_gpu_env" >>"$ETC/gres.conf"
        done
    fi
    if [ "$USECG" = 1 ]; then
        cat >"$ETC/cgroup.conf" <<EOF
CgroupPlugin=cgroup/v1
CgroupAutomount=no
CgroupMountpoint=/sys/fs/cgroup
ConstrainRAMSpace=yes
AllowedRAMSpace=100
ConstrainSwapSpace=no
ConstrainCores=no
ConstrainDevices=no
EOF
    fi
    if [ "$USEDB" = 1 ]; then
        {
            cat <<EOF
AuthType=auth/$AUTH
$authinfo
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort=$DBDPORT
SlurmUser=root
DebugLevel=info
LogFile=$LOG/slurmdbd.log
PidFile=$RUN/slurmdbd.own.pid
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=root
StorageLoc=slurm_acct
EOF
        } >"$ETC/slurmdbd.conf"
        chmod 600 "$ETC/slurmdbd.conf"
    fi
    # what the nodes see as /etc/hosts: their names, so that MASTER_ADDR=n1 resolves inside jobs
    { cat /etc/hosts; printf '127.0.0.1'; for i in $(seq "$NODES"); do printf ' n%s' "$i"; done; echo; } >"$ETC/hosts"
}

cgroup_v1() { # the hierarchies SLURM needs, writable, and not in use by another box (SLURM names them by node)
    local h d
    for h in freezer memory cpuacct; do
        [ ! -e "/sys/fs/cgroup/$h/slurm_n1" ] || { say "/sys/fs/cgroup/$h/slurm_n1 exists: doing without cgroups"; return 1; }
        d=/sys/fs/cgroup/$h/growpoint-probe
        mkdir "$d" 2>/dev/null && [ -e "$d/cgroup.procs" ] || { rmdir "$d" 2>/dev/null; return 1; }
        rmdir "$d"
    done
}
load_settings() {
    [ -f "$SETTINGS" ] || die "no cluster was started under $BOX"
    # shellcheck disable=SC1090
    . "$SETTINGS"
    export SLURM_CONF=$ETC/slurm.conf
}

# ---------------------------------------------------------------- daemons
start_munged() {
    [ -f "$ETC/munge.key" ] || { (umask 077; head -c 1024 /dev/urandom >"$ETC/munge.key"); }
    chmod 0700 "$RUN/munge"
    daemonise munged "$LOG/munged.out" munged --foreground --force --num-threads=4 \
        --key-file="$ETC/munge.key" --socket="$RUN/munge.socket" --pid-file="$RUN/munge/munged.pid" \
        --log-file="$LOG/munged.log" --seed-file="$RUN/munge/munged.seed"
    wait_for 10 munged test -S "$RUN/munge.socket"
}
DBOPT=(--no-defaults --user=root --innodb-buffer-pool-size=64M --innodb-log-file-size=24M
    --innodb-flush-log-at-trx-commit=0 --innodb-doublewrite=0 --innodb-lock-wait-timeout=900
    --innodb-buffer-pool-dump-at-shutdown=0 --innodb-buffer-pool-load-at-startup=0
    --performance-schema=0 --skip-log-bin --skip-name-resolve
    --debug-no-sync --sync-frm=0 --innodb-flush-method=nosync)
start_mariadbd() {
    if [ ! -d "$DB/mysql" ]; then
        mariadb-install-db "${DBOPT[@]}" --datadir="$DB" --skip-test-db \
            --auth-root-authentication-method=socket --auth-root-socket-user=root >"$LOG/mariadb-install.log" 2>&1 ||
            { tail -20 "$LOG/mariadb-install.log" >&2; die "mariadb-install-db failed"; }
    fi
    daemonise mariadbd "$LOG/mariadbd.log" mariadbd "${DBOPT[@]}" --datadir="$DB" \
        --socket="$RUN/mysql.socket" --pid-file="$RUN/mariadbd.own.pid" --skip-networking
    wait_for 60 mariadbd test -S "$RUN/mysql.socket" || { tail -20 "$LOG/mariadbd.log" >&2; return 1; }
}
start_slurmdbd() {
    MYSQL_UNIX_PORT=$RUN/mysql.socket daemonise slurmdbd "$LOG/slurmdbd.out" slurmdbd -D
    wait_for 60 slurmdbd port_busy "$DBDPORT" && wait_for 60 slurmdbd sacctmgr -n -P show cluster || { tail -20 "$LOG/slurmdbd.log" >&2; return 1; }
}
start_slurmctld() {
    daemonise slurmctld "$LOG/slurmctld.out" slurmctld -D -f "$SLURM_CONF"
    wait_for 30 slurmctld port_busy "$CTLPORT" && wait_for 30 slurmctld sinfo -h || { tail -20 "$LOG/slurmctld.log" >&2; return 1; }
}

# A node is a set of namespaces (mount, hostname, pid) held by a small init; slurmd runs in it.  Killing the
# init makes the kernel kill everything of the node at once, daemonised user processes too.
node_start() {
    local n=$1
    mkdir -p "$SPOOL/$n"
    if [ "$USENS" = 1 ]; then
        daemonise "node-$n" "$LOG/node-$n.out" unshare --mount --uts --pid --fork --mount-proc --kill-child=KILL \
            bash -c '
                echo "$1" >/proc/sys/kernel/hostname
                mount --bind "$2" /etc/hosts
                : >"$3"
                trap : TERM
                while :; do sleep 3600 & wait $!; done' node-init "$n" "$ETC/hosts" "$RUN/node-$n.ready"
        wait_for 5 "namespaces of $n" test -e "$RUN/node-$n.ready"
    fi
    slurmd_start "$n"
}
node_init() { # the host's pid of the node's init
    local outer; outer=$(pid_of "node-$1") || return 1
    cat "/proc/$outer/task/$outer/children" | awk '{print $1}'
}
slurmd_start() {
    local n=$1 init
    rm -f "$RUN/slurmd-$n.own.pid"
    if [ "$USENS" = 1 ]; then
        init=$(node_init "$n") || die "node $n is not running"
        daemonise "slurmd-$n" "$LOG/slurmd-$n.out" nsenter -t "$init" -m -u -p -r -- slurmd -D -N "$n" -f "$SLURM_CONF"
    else
        daemonise "slurmd-$n" "$LOG/slurmd-$n.out" env SLURM_BOX_NODE="$BOX:$n" slurmd -D -N "$n" -f "$SLURM_CONF"
    fi
}
# pids of all that runs on a node, without namespaces: its slurmd, its steps (they hold its log open), their descendants
node_pids_plain() {
    local n=$1 p pids=() new more
    for p in /proc/[0-9]*; do
        p=${p#/proc/}
        case "$(readlink "/proc/$p/exe" 2>/dev/null)" in */slurmstepd*|*/slurmd|*/slurmd-*) ;; *) continue ;; esac
        [ -z "$(find "/proc/$p/fd" -lname "$LOG/slurmd-$n.log" -print -quit 2>/dev/null)" ] || pids+=("$p")
    done
    new=(${pids[@]+"${pids[@]}"})
    while [ ${#new[@]} -gt 0 ]; do
        more=()
        for p in "${new[@]}"; do more+=($(cat /proc/"$p"/task/*/children 2>/dev/null || true)); done
        pids+=(${more[@]+"${more[@]}"}); new=(${more[@]+"${more[@]}"})
    done
    echo ${pids[@]+"${pids[@]}"}
}
node_stop() { # SIGKILL everything of a node
    local n=$1 pid pids
    if [ "$USENS" = 1 ]; then
        if pid=$(pid_of "node-$n"); then
            pids=$(node_init "$n") || true
            kill -KILL "$pid" $pids 2>/dev/null || true
            wait_for 10 "node $n to die" gone "node-$n" || true
        fi
    else
        for _ in 1 2 3; do # a step may have forked meanwhile
            pids=$(node_pids_plain "$n"); [ -n "$pids" ] || break
            kill -KILL $pids 2>/dev/null || true; sleep 0.05
        done
    fi
    rm -f "$RUN/node-$n.pid" "$RUN/slurmd-$n.pid" "$RUN/node-$n.ready" "$RUN/slurmd-$n.own.pid"
    # a node comes back with an empty local disk: a stale spool/jobNNNNN makes the restart of a requeued job
    # fail ("launch failed requeued held")
    rm -rf "${SPOOL:?}/$n"
}
node_state() { sinfo -h -N -n "$1" -p gpu -o %T; }
node_usable() { case "$(node_state "$1")" in idle|mixed|allocated|completing) ;; *) return 1 ;; esac; }
node_down() { case "$(node_state "$1")" in down*) ;; *) return 1 ;; esac; }
alive_nodes_usable() { local i; for i in $(seq "$NODES"); do gone "slurmd-n$i" || node_usable "n$i" || return 1; done; }
nodes_usable() { local i; for i in $(seq "$NODES"); do node_usable "n$i" || return 1; done; }

# ---------------------------------------------------------------- commands
cmd_start() {
    NODES=2 CPUS=4 MEM=16000 GPUS=2 GPUTYPE=h200 AUTH=munge USEDB=1 USENS=1 USECG=auto CREDEXP=5 SETS=()
    local keep=0 t0
    while [ $# -gt 0 ]; do
        case $1 in
            --nodes) NODES=$2; shift ;; --cpus-per-node) CPUS=$2; shift ;; --mem-per-node) MEM=$2; shift ;;
            --gpus-per-node) GPUS=$2; shift ;; --gpu-type) GPUTYPE=$2; shift ;; --auth) AUTH=$2; shift ;;
            --set) SETS+=("$2"); shift ;; --no-db) USEDB=0 ;; --no-ns) USENS=0 ;; --cgroup) USECG=$2; shift ;; --requeue-wait) CREDEXP=$2; shift ;; --keep) keep=1 ;;
            *) die "start: unknown option $1" ;;
        esac
        shift
    done
    [ "$(id -u)" = 0 ] || die "start needs root"
    [ ${#BOX} -le 60 ] || die "SLURM_BOX is too long for unix sockets: $BOX"
    command -v slurmctld >/dev/null && command -v slurmd >/dev/null || die "SLURM is not installed: run '$0 install'"
    [ "$USEDB" = 0 ] || command -v mariadbd >/dev/null || die "MariaDB is not installed: run '$0 install', or pass --no-db"
    [ "$USENS" = 0 ] || unshare --mount --uts --pid --fork --mount-proc true 2>/dev/null ||
        { say "namespaces are not permitted here: nodes share this machine's"; USENS=0; }
    if [ -e "$BOX" ] && [ ! -e "$MARK" ] && [ -n "$(ls -A "$BOX")" ]; then die "$BOX exists and is not a box of mine"; fi
    [ ! -f "$SETTINGS" ] || (cmd_stop)   # in a subshell: it loads the old settings
    if [ $keep = 0 ] && [ -e "$MARK" ]; then rm -rf "${BOX:?}"; fi
    mkdir -p "$ETC" "$RUN/munge" "$LOG" "$SPOOL" "$DB" "$STATE" "$DEV"
    chmod 755 "$BOX" "$RUN"; : >"$MARK"
    case $USECG in on) USECG=1 ;; off) USECG=0 ;; auto) if cgroup_v1; then USECG=1; else USECG=0; fi ;; *) die "--cgroup auto|on|off" ;; esac
    # a start that fails leaves nothing running (and its logs behind)
    trap '[ $? = 0 ] || (cmd_stop) || true' EXIT
    t0=$(now)
    write_conf "$(pick_ports)"
    export SLURM_CONF=$ETC/slurm.conf
    [ "$AUTH" = none ] || start_munged || die "munged did not start: $LOG/munged.log"
    if [ "$USEDB" = 1 ]; then
        start_mariadbd || die "mariadbd did not start"
        say "mariadbd up at $(since "$t0")s"
        start_slurmdbd || die "slurmdbd did not start"
        say "slurmdbd up at $(since "$t0")s"
        if [ ! -e "$DB/accounts-made" ]; then
            # one account with root in it; QOS: short (1 minute), tiny (5 submitted, 2 running), high
            sacctmgr -i -Q >"$LOG/sacctmgr.out" 2>&1 <<'EOF' || { cat "$LOG/sacctmgr.out" >&2; die "sacctmgr failed"; }
add cluster box
add qos short MaxWall=00:01:00 Flags=DenyOnLimit
add qos tiny MaxSubmitJobsPerUser=5 MaxJobsPerUser=2 Flags=DenyOnLimit
add qos high Priority=1000
add account lab Cluster=box Description=lab Organization=lab qos=normal,short,tiny,high DefaultQOS=normal
add user root Account=lab Cluster=box DefaultAccount=lab
EOF
            : >"$DB/accounts-made"
        fi
        say "accounts made at $(since "$t0")s"
    fi
    start_slurmctld || die "slurmctld did not start"
    say "slurmctld up at $(since "$t0")s"
    local i; for i in $(seq "$NODES"); do node_start "n$i"; done
    wait_for 30 nodes nodes_usable || { tail -n 5 "$LOG"/node-*.out "$LOG"/slurmd-* >&2; sinfo -N -l >&2; die "the nodes did not come up"; }
    say "cluster of $NODES nodes x $CPUS cpus x $GPUS gpus is up in $(since "$t0")s; eval \"\$($0 env)\""
}

cmd_stop() {
    local wipe=0 i
    [ "${1:-}" != --wipe ] || wipe=1
    if [ -f "$SETTINGS" ]; then
        load_settings
        stop_pid slurmctld 10
        for i in $(seq "$NODES"); do node_stop "n$i"; done
        stop_pid slurmdbd 10
        stop_pid mariadbd 20
        stop_pid munged 5
        rm -f "$RUN/munge.socket" "$RUN/munge.socket.lock"
        # the one thing outside the box: the kernel's directories of cgroup mode
        [ "$USECG" = 0 ] || for i in $(seq "$NODES"); do
            find /sys/fs/cgroup/*/"slurm_n$i" -depth -type d -exec rmdir {} + 2>/dev/null || true; done
    fi
    if [ $wipe = 1 ] && [ -e "$MARK" ]; then rm -rf "${BOX:?}"; fi
}

cmd_status() {
    load_settings
    local d bad=0 names=(slurmctld) i
    [ "$AUTH" = none ] || names+=(munged)
    [ "$USEDB" = 0 ] || names+=(mariadbd slurmdbd)
    for i in $(seq "$NODES"); do names+=("slurmd-n$i"); done
    for d in "${names[@]}"; do
        if alive "$d"; then echo "$d up pid $(pid_of "$d")"; else echo "$d DOWN"; bad=1; fi
    done
    timeout 20 sinfo -N -o '%N %P %T %c %m %G' || bad=1
    timeout 20 squeue || bad=1
    return $bad
}

cmd_env() {
    load_settings
    echo "export SLURM_BOX=$BOX"
    echo "export SLURM_CONF=$SLURM_CONF"
}

cmd_kill_node() {
    load_settings
    local n=${1:?node} t0
    t0=$(now)
    node_stop "$n"
    # --down: an admin says so, and the jobs fail over at once; else SLURM finds out by itself (SlurmdTimeout)
    [ "${2:-}" != --down ] || scontrol update nodename="$n" state=down reason="killed by cluster.sh"
    [ "${2:-}" = --no-wait ] || { wait_for 60 "$n to be DOWN" node_down "$n"; say "$n is $(node_state "$n") after $(since "$t0")s"; }
}
cmd_restore_node() {
    load_settings
    local n=${1:?node} t0
    t0=$(now)
    alive "slurmd-$n" || node_start "$n"
    # ReturnToService=2 brings a node back by itself when it registers; resume covers one an admin set down
    wait_for 15 "$n" node_usable "$n" || { scontrol update nodename="$n" state=resume || true; wait_for 15 "$n" node_usable "$n"; }
    say "$n is $(node_state "$n") after $(since "$t0")s"
}
cmd_kill_daemon() {
    load_settings
    local d=${1:?daemon} n
    case $d in
        slurmd@*)
            n=${d#slurmd@}
            if [ "$USENS" = 1 ]; then
                nsenter -t "$(node_init "$n")" -m -p -r -- kill -KILL "$(cat "$RUN/slurmd-$n.own.pid")"
            else
                kill -KILL "$(pid_of "slurmd-$n")"
            fi
            wait_for 10 "$d" gone "slurmd-$n"; rm -f "$RUN/slurmd-$n.pid" ;;
        slurmctld|slurmdbd|mariadbd|munged)
            # a killed slurmctld forgets its last seconds: jobs just submitted are lost, their ids are given again
            [ "${2:-}" = --hard ] || { stop_pid "$d" 20; return; }
            kill -KILL "$(pid_of "$d")"; wait_for 10 "$d" gone "$d"; rm -f "$RUN/$d.pid" ;;
        *) die "unknown daemon $d" ;;
    esac
}
cmd_restore_daemon() {
    load_settings
    local d=${1:?daemon}
    case $d in
        slurmd@*) alive "slurmd-${d#slurmd@}" || slurmd_start "${d#slurmd@}"; wait_for 20 "$d" node_usable "${d#slurmd@}" ;;
        slurmctld|slurmdbd|mariadbd|munged)
            if ! alive "$d"; then
                [ "$d" != munged ] || rm -f "$RUN/munge.socket" "$RUN/munge.socket.lock"
                [ "$d" != mariadbd ] || rm -f "$RUN/mysql.socket"
                "start_$d"
                [ "$d" != slurmctld ] || wait_for 20 "the nodes" alive_nodes_usable || true
            fi ;;
        *) die "unknown daemon $d" ;;
    esac
}

case ${1:-} in
    install) shift; cmd_install "$@" ;;
    start) shift; cmd_start "$@" ;;
    stop) shift; cmd_stop "$@" ;;
    status) shift; cmd_status "$@" ;;
    env) shift; cmd_env "$@" ;;
    kill-node) shift; cmd_kill_node "$@" ;;
    restore-node) shift; cmd_restore_node "$@" ;;
    kill-daemon) shift; cmd_kill_daemon "$@" ;;
    restore-daemon) shift; cmd_restore_daemon "$@" ;;
    *) sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "$SELF"; exit 2 ;;
esac
