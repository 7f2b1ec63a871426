"""The user of a task's processes."""

from __future__ import annotations

import os
import pwd
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict


class UnknownUser(Exception):
    """The machine has no such user."""


class ProcessUser(TypedDict, total=False):
    """Arguments of `asyncio.create_subprocess_exec` that set the user."""

    user: int
    group: int
    extra_groups: list[int]


@dataclass(frozen=True, slots=True)
class Identity:
    """Another user than the agent's own."""

    uid: int
    gid: int
    groups: tuple[int, ...]

    @property
    def argument(self) -> str:
        """The identity as `runner.set_identity` reads it."""
        return f"{self.uid}:{self.gid}:{','.join(map(str, self.groups))}"

    def for_subprocess(self) -> ProcessUser:
        """Arguments that start a child process as this user."""
        return {"user": self.uid, "group": self.gid, "extra_groups": list(self.groups)}

    def own(self, root: Path) -> None:
        """Give everything below `root` to this user, `root` last. Links are not followed.

        Until then nobody else can reach a folder below and replace it by a link.
        """
        for folder, folders, files in os.walk(root, topdown=False):
            for name in (*folders, *files):
                os.lchown(Path(folder) / name, self.uid, self.gid)
        os.lchown(root, self.uid, self.gid)


@dataclass(frozen=True, slots=True)
class UserPolicy:
    """As whom tasks run.

    Attributes:
        default_user: the user of tasks that name none; empty: the agent's own user.
        allows_root: whether tasks may run as root. If not, root counts as no name; the master
            refuses commands that name it.

    """

    default_user: str = ""
    allows_root: bool = True

    def identity_of(self, user: str | None) -> Identity | None:
        """The identity of a task's processes; None: the agent's own.

        A user that is named and empty is no user's name, as in Apache Mesos.

        Raises:
            UnknownUser: the user is empty, or the agent is root and the machine has no such user.

        """
        if user == "":
            raise UnknownUser("User '' does not exist; name the command's user or leave it out")
        if os.geteuid() != 0:
            return None
        if not user or (_is_root(user) and not self.allows_root):
            user = self.default_user
        return identity_of(user)


def _is_root(user: str) -> bool:
    try:
        return pwd.getpwnam(user).pw_uid == 0
    except KeyError:
        return False


def identity_of(user: str | None) -> Identity | None:
    """The identity of a user; None when the agent is not root, or the user is the agent's own.

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
