"""Where the local cloud keeps what: one folder, given by the caller, never the home folder."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 5566
METADATA_PORT = 1338
PRIVATE_FILE_MODE = 0o600
"""The account has private keys and credentials, so only its owner may read it."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Paths below the state folder `root` (`.mesaform/local`)."""

    root: Path

    @property
    def endpoint(self) -> Path:
        """`{"url", "pid"}` of the running daemon; absent when it does not run."""
        return self.root / "endpoint.json"

    @property
    def pid(self) -> Path:
        return self.root / "pid"

    @property
    def port(self) -> Path:
        """Where the daemon listened last; stays when it ends."""
        return self.root / "port"

    @property
    def lock(self) -> Path:
        """Locked (flock) by the daemon as long as it lives, so a pid file that outlived its process is recognised for certain."""
        return self.root / "lock"

    @property
    def log(self) -> Path:
        return self.root / "log"

    @property
    def account(self) -> Path:
        """The account as it was after the last mutating call."""
        return self.root / "account"

    @property
    def faults(self) -> Path:
        """The faults in force (`faults.FaultRegistry`)."""
        return self.root / "faults.json"

    @property
    def machines(self) -> Path:
        return self.root / "machines"

    @property
    def images(self) -> Path:
        return self.root / "images"

    def machine(self, instance_id: str) -> Path:
        return self.machines / instance_id

    def image(self, image_id: str) -> Path:
        return self.images / image_id

    def console(self, instance_id: str) -> Path:
        return self.machine(instance_id) / "console.log"

    def create(self) -> None:
        """Make the folders. Idempotent."""
        for folder in (self.log, self.account, self.machines, self.images):
            folder.mkdir(parents=True, exist_ok=True)


def write_atomically(path: Path, data: bytes) -> None:
    """Replace `path`; a reader, or a crash, sees the old content or the new, never a part."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    scratch.write_bytes(data)
    scratch.replace(path)
