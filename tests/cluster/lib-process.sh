# Starting and killing background processes.
# shellcheck shell=bash disable=SC2153 # the settings come from lib.sh
#
# Every process of the cluster lives below the cgroup $CGROUP, containers
# included. That is how a later run finds them all, and how no process of
# anyone else is ever hit: a process number alone may have been given anew.

# The mounted cgroup hierarchies: one on cgroup v2, one a controller on v1.
cgroup_hierarchies() {
    if [[ -e /sys/fs/cgroup/cgroup.controllers ]]; then
        echo /sys/fs/cgroup
    else
        local dir
        for dir in /sys/fs/cgroup/*/; do
            # cpu and cpuacct may be two names of one hierarchy.
            [[ -L ${dir%/} || ! -e $dir/cgroup.procs ]] || echo "${dir%/}"
        done
    fi
}

# The one hierarchy that daemons are put into.
process_hierarchy() {
    if [[ -e /sys/fs/cgroup/cgroup.controllers ]]; then
        echo /sys/fs/cgroup
    else
        echo /sys/fs/cgroup/pids
    fi
}

make_cgroups() {
    local h n dir
    for h in $(cgroup_hierarchies); do
        [[ $h != */unified ]] || continue
        for dir in "$h/$CGROUP" "${NODES[@]/#/$h/$CGROUP/node-}"; do
            mkdir -p "$dir"
            if [[ -e $dir/cpuset.cpus && ! -e $dir/cgroup.controllers ]]; then
                # cgroup v1 takes no process into a cpuset without both.
                cat "$(dirname "$dir")/cpuset.cpus" >"$dir/cpuset.cpus"
                cat "$(dirname "$dir")/cpuset.mems" >"$dir/cpuset.mems"
            fi
        done
        if [[ -e $h/cgroup.controllers ]]; then
            # Best effort: a controller the parent lacks is not given on.
            for dir in "$h" "$h/$CGROUP" "${NODES[@]/#/$h/$CGROUP/node-}"; do
                for n in $(<"$dir/cgroup.controllers"); do
                    echo "+$n" >"$dir/cgroup.subtree_control" 2>/dev/null || true
                done
            done
        fi
    done
}

# start_process NAME GROUP COMMAND...: in the background, in the cgroup GROUP,
# output to $LOGS/NAME.log. It keeps none of the caller's files open: a caller
# that reads our output through a pipe must see its end.
start_process() {
    local name=$1 group
    group=$(process_hierarchy)/$CGROUP/$2
    shift 2
    mkdir -p "$group" "$LOGS" "$PIDS"
    (
        echo "$BASHPID" >"$group/cgroup.procs"
        for fd in "/proc/$BASHPID/fd"/*; do
            fd=${fd##*/}
            ((fd <= 2)) || eval "exec $fd>&-"
        done
        ulimit -n "$(ulimit -Hn)"
        # A clean environment: proxies and the like are not ours to pass on.
        exec env -i PATH="$CONTAINERD:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" HOME="$STATE" \
            setsid "$@" </dev/null >>"$LOGS/$name.log" 2>&1
    ) &
    # Here as well, so that it is in its cgroup when this returns.
    echo "$!" >"$group/cgroup.procs"
    echo "$!" >"$PIDS/$name"
}

# The process number of a process of ours, or nothing when it does not run.
process_id() {
    local pid
    pid=$(cat "$PIDS/$1" 2>/dev/null) || return 1
    grep -qs "/$CGROUP/" "/proc/$pid/cgroup" || return 1
    echo "$pid"
}

stop_process() {
    local pid
    pid=$(process_id "$1") || return 0
    kill -KILL "$pid" 2>/dev/null || true
    wait_for 10 "the end of $1" threads_gone "$pid"
    rm -f "$PIDS/$1"
}

# A process that is killed leaves its cgroup at once, and its ports when its last thread has ended.
threads_gone() {
    local file stat
    for file in "/proc/$1/task"/*/stat; do
        read -r stat 2>/dev/null <"$file" || continue
        [[ ${stat##*) } == [ZX]* ]] || return 1
    done
}

process_gone() { ! process_id "$1" >/dev/null; }

# Says which process died and why, rather than waiting out a time limit.
require_running() {
    local name
    for name in "$@"; do
        if process_gone "$name"; then
            tail -n 15 "$LOGS/$name.log" >&2 || true
            die "$name stopped; its log is $LOGS/$name.log"
        fi
    done
}

# wait_running SECONDS WHAT "PROCESS..." COMMAND...: as wait_for, and gives up
# at once when one of the processes has died.
wait_running() {
    local limit=$1 what=$2 names=$3 deadline
    shift 3
    deadline=$((SECONDS + limit))
    until "$@" &>/dev/null; do
        # shellcheck disable=SC2086 # a list of names
        require_running $names
        ((SECONDS < deadline)) || die "gave up waiting for $what after $limit s; the logs are in $LOGS"
        sleep 0.1
    done
}

# Process numbers below a cgroup of ours: `group_processes node-0`.
group_processes() {
    local h
    for h in $(cgroup_hierarchies); do
        [[ -d $h/$CGROUP/$1 ]] || continue
        find "$h/$CGROUP/$1" -name cgroup.procs -exec cat {} + 2>/dev/null || true
    done | sort -nu
}

# Kills everything below the cgroup; again and again, since a shim may have
# been about to start one more.
kill_group() {
    local deadline=$((SECONDS + 20)) pids
    while pids=$(group_processes "$1") && [[ -n $pids ]]; do
        # shellcheck disable=SC2086 # a list of numbers
        kill -KILL $pids 2>/dev/null || true
        ((SECONDS < deadline)) || die "these processes do not end: $(tr '\n' ' ' <<<"$pids")"
        sleep 0.05
    done
}
