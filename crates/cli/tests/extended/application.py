#!/usr/bin/env python3
"""A stateful application that behaves as a test wants, and keeps a journal of what happened to it.

Every line of the journal is `EVENT PID EPOCH INSTANCE`: `start`, `term` for each SIGTERM, `end` before a normal exit,
`child-end`, and `double` when another copy is alive. That last one is not guessed: all processes of a copy share a
lock on a file, and the kernel lets it go with the last of them.
"""

import argparse
import fcntl
import os
import pathlib
import signal
import socket
import sys
import time

# How often files are looked for; they are how a test says "now".
LOOK = 0.005


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("journal", type=pathlib.Path)
    parser.add_argument("--on-term", default="exit", choices=["exit", "swallow", "ignore"])
    parser.add_argument("--exit-code", type=int, default=0)
    parser.add_argument("--until", type=pathlib.Path, help="after SIGTERM, stay until this file is there")
    parser.add_argument("--extend", type=int, help="after SIGTERM, ask for so many seconds from then on")
    parser.add_argument("--child", default="", choices=["", "plain", "daemon"], help="have a child that outlives us")
    parser.add_argument("--child-until", type=pathlib.Path, help="the child stays until this file is there")
    parser.add_argument("--crash", type=pathlib.Path, help="exit with 9 when this file is there")
    parser.add_argument("--own-lock", action="store_true", help="other instances may run: no common lock")
    return parser.parse_args()


def note(args, event):
    instance = os.environ.get("QUIESCE_INSTANCE", "-").rsplit("/", 1)[-1]
    line = f"{event} {os.getpid()} {os.environ.get('QUIESCE_EPOCH', '-')} {instance}\n"
    # One short write in append mode: lines of several processes do not mix, and their order is that of the writes.
    journal = os.open(args.journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.write(journal, line.encode())
    os.close(journal)


def notify(text):
    address = os.environ.get("NOTIFY_SOCKET")
    if address:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.sendto(text.encode(), "\0" + address[1:] if address[0] == "@" else address)


def lock(args):
    name = os.environ.get("QUIESCE_INSTANCE", "-").rsplit("/", 1)[-1] if args.own_lock else "one"
    held = os.open(args.journal.with_suffix(f".{name}.lock"), os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        note(args, "double")


def wait_for(path):
    while not path.exists():
        time.sleep(LOOK)


def child(args):
    """A process that is not impressed by the end of its parent; as a daemon it leaves session and group as well."""
    if os.fork():
        return
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if args.child == "daemon":
        os.setsid()
        if os.fork():
            os._exit(0)
    note(args, "child-start")
    wait_for(args.child_until)
    note(args, "child-end")
    os._exit(0)


def main():
    args = arguments()
    told = []
    if args.on_term == "ignore":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    else:
        signal.signal(signal.SIGTERM, lambda *_: (note(args, "term"), told.append(True)))
    lock(args)
    note(args, "start")
    if args.child:
        child(args)
    notify("READY=1\nSTATUS=Serving")
    while not told or args.on_term == "swallow":
        if args.crash and args.crash.exists():
            sys.exit(9)
        time.sleep(LOOK)
    notify("STOPPING=1\nSTATUS=Putting things away")
    if args.extend:
        notify(f"EXTEND_TIMEOUT_USEC={args.extend * 1_000_000}\nSTATUS=Need more time")
    if args.until:
        wait_for(args.until)
    note(args, "end")
    sys.exit(args.exit_code)


main()
