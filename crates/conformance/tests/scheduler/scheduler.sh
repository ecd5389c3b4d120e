#!/bin/sh
# A scheduler in this directory: start, stop, restart. SCHEDULER is the program, SCHEDULER_FLAGS are its flags.
set -eu
cd "$(dirname "$0")"

start() {
    # shellcheck disable=SC2086
    "$SCHEDULER" --data-dir "$PWD/state" --admin-listen off $SCHEDULER_FLAGS >>scheduler.log 2>&1 </dev/null &
    echo $! >pid
}

stop() {
    if [ -f pid ]; then
        kill -9 "$(cat pid)" 2>/dev/null || true
        # The store is locked for as long as the process is there.
        while kill -0 "$(cat pid)" 2>/dev/null && ! grep -q 'State:[[:space:]]*Z' "/proc/$(cat pid)/status"; do sleep 0.02; done
        rm pid
    fi
}

case "$1" in
start) start ;;
stop) stop ;;
restart)
    stop
    start
    ;;
esac
