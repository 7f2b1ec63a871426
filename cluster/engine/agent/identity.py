"""The user that a task runs as."""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class UnknownUser(Exception):
    """No such user on this machine."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Another user than the agent's own."""

    uid: int
    gid: int
    groups: tuple[int, ...]

    @property
    def argument(self) -> str:
        """As the runner reads it."""
        return f"{self.uid}:{self.gid}:{','.join(map(str, self.groups))}"

    def for_subprocess(self) -> dict[str, Any]:
        """Arguments that make a child process this user."""
        return {"user": self.uid, "group": self.gid, "extra_groups": list(self.groups)}

    def own(self, root: Path) -> None:
        """Make everything below `root` this user's, without following links out of it."""
        os.lchown(root, self.uid, self.gid)
        for folder, folders, files in os.walk(root):
            for name in (*folders, *files):
                os.lchown(Path(folder) / name, self.uid, self.gid)


def identity_of(user: str | None) -> Identity | None:
    """The identity to take on; None when the agent's own will do, or it is not root and cannot take another.

    Raises:
        UnknownUser: the agent is root, and the machine has no such user.

    """
    if not user or os.geteuid() != 0:
        return None
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        raise UnknownUser(
            f"User '{user}' does not exist on this machine; set the command's user to one that does"
        ) from None
    if entry.pw_uid == 0:
        return None
    return Identity(entry.pw_uid, entry.pw_gid, tuple(os.getgrouplist(user, entry.pw_gid)))
