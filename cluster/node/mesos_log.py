"""Starts Apache Mesos' master, and decides whether its replicated log may be initialized.

A log is initialized once, when the members of the cluster start for the first time. A member whose
log is lost later takes the log's content from the others: an empty log that took part in a quorum
would forget agents that were marked gone. ZooKeeper keeps, by member, that its log was begun; the
member's own folder keeps that it was begun there. The node runs this program in a process of its
own, which then becomes the master, so that kazoo's memory is freed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from mesaform.common.errors import MesaformError
from mesaform.common.files import write_atomically
from mesaform.zookeeper.access import read_zk_url
from mesaform.zookeeper.session import VersionConflict, ZooKeeper

LOG_BEGUN_PATH = "/mesaform/engine-log"
"""Node in ZooKeeper with a child for each member whose log was begun."""

MARK = "log-begun-here"
"""File in a master's work_dir: this folder had the member's first log."""

ZOOKEEPER_WAIT_S = 120.0
EXIT_LATER = 1


async def may_initialize(zookeeper: ZooKeeper, member: str, work_dir: Path) -> bool:
    """Whether the log in `work_dir` is the member's first one. Idempotent.

    The file is written before the node: a member that ends between them still may.

    Raises:
        ZooKeeperUnavailable: no answer.

    """
    mark, node = work_dir / MARK, f"{LOG_BEGUN_PATH}/{member}"
    if not mark.exists() and await zookeeper.get(node) is None:
        write_atomically(mark, b"", durable=True)
    with contextlib.suppress(VersionConflict):  # begun before, here or in a folder that is lost
        await zookeeper.create(node, b"")
    return mark.exists()


async def _decide(environ: Mapping[str, str]) -> bool:
    url = read_zk_url(environ["MESOS_ZK"])
    zookeeper = ZooKeeper(url.hosts, credentials=url.credentials)
    await zookeeper.start(ZOOKEEPER_WAIT_S)
    try:
        work_dir = Path(environ["MESOS_WORK_DIR"])
        return await may_initialize(zookeeper, environ["MESOS_HOSTNAME"], work_dir)
    finally:
        await zookeeper.stop()


def main(argv: Sequence[str]) -> int:
    """Become the program of the arguments; return 1 while ZooKeeper does not answer."""
    environ = dict(os.environ)
    try:
        is_first = asyncio.run(_decide(environ))
    except MesaformError as error:
        sys.stderr.write(f"{error}\n")
        return EXIT_LATER
    environ["MESOS_LOG_AUTO_INITIALIZE"] = "true" if is_first else "false"
    return os.execve(argv[0], list(argv), environ)  # noqa: S606 - the argument is a program's path


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
