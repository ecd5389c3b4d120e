"""A process of this machine: whether it runs, and signals to it and to no other. Linux only."""

from __future__ import annotations

import os
import signal
from pathlib import Path

# In clock ticks, which is what the start time of a process is counted in.
_TICKS = os.sysconf("SC_CLK_TCK")
# The times of files and of processes are rounded differently.
_ROUNDING = 1.0


class Process:
    """The process whose pid stands in a file.

    The file is read each time, so whoever starts the application anew writes a new one. A process that has begun after the
    file was written is another one that was given the same pid: it is neither taken for the application nor sent signals.
    A zombie has ended.
    """

    def __init__(self, pid_file: str | os.PathLike[str]) -> None:
        self._file = Path(pid_file)

    def running(self) -> bool:
        """Whether it runs."""
        return self._pid() is not None

    def terminate(self, *_: object) -> None:
        """Sends SIGTERM; fit to be the callback `stop`."""
        self.signal(signal.SIGTERM)

    def kill(self) -> None:
        """Sends SIGKILL; fit to be the callback `kill`."""
        self.signal(signal.SIGKILL)

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal. That it has ended is no error."""
        pid = self._pid()
        if pid is None:
            return
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            return
        try:
            # Now that the descriptor holds on to it, it cannot be mistaken any more.
            if self._pid() == pid:
                signal.pidfd_send_signal(descriptor, number)
        except ProcessLookupError:
            return
        finally:
            os.close(descriptor)

    def _pid(self) -> int | None:
        try:
            pid, written = int(self._file.read_text()), self._file.stat().st_mtime
            # The name of the program, in parentheses, may hold anything.
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return None
        state, started = fields[0], _boot_time() + int(fields[19]) / _TICKS
        return pid if state not in "ZX" and started <= written + _ROUNDING else None


def _boot_time() -> float:
    for line in Path("/proc/stat").read_text().splitlines():
        if line.startswith("btime "):
            return float(line.split()[1])
    raise OSError("/proc/stat does not say when the machine was started")
