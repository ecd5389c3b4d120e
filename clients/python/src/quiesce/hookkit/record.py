"""What a hook remembers over a restart: files in its state directory that nobody else can read.

Written before what they announce is done, replaced as a whole. Of the completion token only a digest is kept.
"""

from __future__ import annotations

import json
import os
import uuid
from pathlib import Path
from typing import Any

# A reader that finds another format refuses to run rather than to guess.
_FORMAT = 1


class StateDirectory:
    """The directory, or the memory of this process if there is none."""

    def __init__(self, path: str | os.PathLike[str] | None) -> None:
        self._path = Path(path) if path is not None else None
        self._memory: dict[str, str] = {}
        if self._path is not None:
            self._path.mkdir(mode=0o700, parents=True, exist_ok=True)

    @property
    def durable(self) -> bool:
        """Whether what is written outlives this process."""
        return self._path is not None

    def read(self, name: str) -> str | None:
        """The content of a file, None if there is none."""
        if self._path is None:
            return self._memory.get(name)
        try:
            return (self._path / name).read_text(encoding="utf-8")
        except FileNotFoundError:
            return None

    def replace(self, name: str, content: str) -> None:
        """Replaces a file; durable when it returns."""
        if self._path is None:
            self._memory[name] = content
            return
        fresh = self._path / f".{name}.{uuid.uuid4().hex}"
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with open(descriptor, "w", encoding="utf-8") as file:
                file.write(content)
                file.flush()
                os.fsync(descriptor)
            os.rename(fresh, self._path / name)
        except BaseException:
            fresh.unlink(missing_ok=True)
            raise
        directory = os.open(self._path, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def load(self) -> dict[str, Any] | None:
        """The last shutdown, as far as it is known."""
        content = self.read("hook.json")
        if content is None:
            return None
        document = json.loads(content)
        if document.get("format") != _FORMAT:
            raise ValueError(f"hook.json has format {document.get('format')}, this program knows {_FORMAT}")
        shutdown: dict[str, Any] = document["shutdown"]
        return shutdown

    def save(self, shutdown: dict[str, Any]) -> None:
        """Remembers it."""
        self.replace("hook.json", json.dumps({"format": _FORMAT, "shutdown": shutdown}))

    def agent_id(self) -> str:
        """Identity of this hook: made once."""
        known = self.read("agent.id")
        if not known:
            known = uuid.uuid4().hex
            self.replace("agent.id", known)
        return known.strip()
