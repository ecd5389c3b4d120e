"""A process of this machine: whether it runs, and signals to it and to no other. Linux only."""

from __future__ import annotations

import os
import signal
from pathlib import Path

# In clock ticks, which is what the start time of a process is counted in.
_TICKS = os.sysconf("SC_CLK_TCK")
# The times of files and of processes are rounded differently.
_ROUNDING = 1.0


# A process: its pid, and when it began, in clock ticks since the machine was started.
_Identity = tuple[int, int]


class Process:
    """The process whose pid stands in a file.

    The file is read each time, so whoever starts the application anew writes a new one. A process that has begun after the
    file was written is another one that was given the same pid: it is neither taken for the application nor sent signals.
    A zombie has ended. Once seen, a process is watched until its end, also when it has removed its file by then; a file
    that is missing says nothing about a process that was never seen.
    """

    def __init__(self, pid_file: str | os.PathLike[str]) -> None:
        self._file = Path(pid_file)
        self._seen: _Identity | None = None

    def running(self) -> bool:
        """Whether it runs; raises OSError or ValueError when that cannot be told."""
        return self._find() is not None

    def terminate(self, *_: object) -> None:
        """Sends SIGTERM; fit to be the callback `stop`."""
        self.signal(signal.SIGTERM)

    def kill(self) -> None:
        """Sends SIGKILL; fit to be the callback `kill`."""
        self.signal(signal.SIGKILL)

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal. That it has ended is no error."""
        identity = self._find()
        if identity is None:
            return
        try:
            descriptor = os.pidfd_open(identity[0])
        except ProcessLookupError:
            return
        try:
            # Now that the descriptor holds on to it, it cannot be mistaken any more.
            if _alive(identity):
                signal.pidfd_send_signal(descriptor, number)
        except ProcessLookupError:
            return
        finally:
            os.close(descriptor)

    def _find(self) -> _Identity | None:
        seen = self._seen if self._seen is not None and _alive(self._seen) else None
        try:
            pid, written = int(self._file.read_text()), self._file.stat().st_mtime
        except FileNotFoundError:
            if self._seen is None:
                raise
            return seen
        ticks = _start(pid)
        if ticks is not None and _boot_time() + ticks / _TICKS <= written + _ROUNDING:
            self._seen = (pid, ticks)
            return self._seen
        return seen


def _alive(identity: _Identity) -> bool:
    return _start(identity[0]) == identity[1]


def _start(pid: int) -> int | None:
    """When the process of that pid began; None if there is none that has not ended."""
    try:
        # The name of the program, in parentheses, may hold anything.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in ("Z", "X") else int(fields[19])


def _boot_time() -> float:
    for line in Path("/proc/stat").read_text().splitlines():
        if line.startswith("btime "):
            return float(line.split()[1])
    raise OSError("/proc/stat does not say when the machine was started")
