#!/bin/sh
# The reference agent with an application that behaves as it is told, for hook-conformance. See docs/conformance.md.
#
#   fixture.sh start MODE | alive | kill | signals | restart | pid
#
# Needs: AGENT, the program of the agent; AGENT_FLAGS, how it and the scheduler reach each other. Everything is kept in
# the directory of this file. The application is this file, too: `fixture.sh application`, started by the agent.
set -u
cd "$(dirname "$0")" || exit 2
self=$PWD/fixture.sh

# The oracle: every process of the application that runs. `pids` has the leaders of its process groups. A zombie has
# ended; so has a process that is gone before it is read.
processes() {
    [ -e pids ] || return 0
    leaders=" $(tr '\n' ' ' <pids)"
    for process in /proc/[0-9]*; do
        read -r stat 2>/dev/null <"$process/stat" || continue
        # shellcheck disable=SC2086
        set -- ${stat##*) }
        case $1 in Z | X | x) continue ;; esac
        case $leaders in *" $3 "*) echo "${process#/proc/}" ;; esac
    done
}

# Ends all of it at once, and waits until it is gone.
end_application() {
    for process in $(processes); do kill -9 "$process" 2>/dev/null; done
    while [ -n "$(processes)" ]; do sleep 0.01; done
}

end_agent() {
    [ -e agent ] || return 0
    pid=$(cat agent)
    kill -9 "$pid" 2>/dev/null
    while read -r stat 2>/dev/null <"/proc/$pid/stat"; do
        # A zombie has ended when none of its other threads is left: until then it may hold its lock.
        set -- "/proc/$pid/task"/*
        case $#${stat##*) } in 1Z* | 1X* | 1x*) break ;; esac
        sleep 0.01
    done
}

start_agent() {
    # AGENT_FLAGS is a list of words.
    # shellcheck disable=SC2086
    "$AGENT" --application shop --cluster edge-1 --instance shop-0 --state-dir "$PWD/state" --log-format text \
        --ready-command "$self ready" --drain-command "$self drain" $AGENT_FLAGS \
        -- "$self" application </dev/null >>agent.log 2>&1 &
    echo $! >agent
}

application() {
    mode=$(cat mode)
    echo $$ >>pids
    # What is started again when it is broken.
    if [ "$mode" = broken ] && [ -e ran ]; then exit 1; fi
    : >ran
    case $mode in
    slow) trap 'echo term >>terms; sleep 1.5; exit 0' TERM ;;
    deaf) trap 'echo term >>terms' TERM ;;
    exit7) trap 'echo term >>terms; exit 7' TERM ;;
    children)
        trap 'echo term >>terms' TERM
        for _ in 1 2; do
            setsid sh -c 'trap "" TERM; echo $$ >>pids; while :; do sleep 0.05; done' &
        done
        ;;
    *) trap 'echo term >>terms; exit 0' TERM ;;
    esac
    echo $$ >up
    while :; do sleep 0.02; done
}

case ${1:-} in
start)
    # A life of its own: another agent, and nothing left of the one before.
    end_agent
    end_application
    rm -rf state pids ran up hook.sock
    echo "$2" >mode
    start_agent
    while [ -z "$(processes)" ]; do sleep 0.01; done
    if [ "$2" = children ]; then
        while [ "$(processes | wc -l)" -lt 3 ]; do sleep 0.01; done
    fi
    ;;
alive) [ -n "$(processes)" ] ;;
kill) end_application ;;
signals) if [ -e terms ]; then wc -l <terms; else echo 0; fi ;;
restart)
    end_agent
    start_agent
    ;;
pid) cat agent ;;
# Whether it has come as far as its loop.
ready) [ -e up ] && kill -0 "$(cat up)" ;;
drain) if [ "$(cat mode)" = drains ]; then sleep 4; fi ;;
application) application ;;
*)
    echo "fixture.sh start MODE | alive | kill | signals | restart | pid" >&2
    exit 2
    ;;
esac
