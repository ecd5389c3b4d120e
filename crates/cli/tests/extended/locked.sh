#!/bin/sh
# locked.sh JOURNAL COMMAND...: runs COMMAND as a copy of an application that is not to be changed, and writes down that
# it did, in the words of application.py. All processes of a copy share a lock on a file, which they inherit and the
# kernel lets go with the last of them: a second copy that gets to run at all, however shortly, is a line `double`.
set -eu
journal=$1
shift

note() { echo "$1 $$ ${QUIESCE_EPOCH:--} ${QUIESCE_INSTANCE##*/}" >>"$journal"; }

exec 9>>"$journal.lock"
flock --nonblock 9 || {
    note double
    exit 111
}
note start
exec "$@"
