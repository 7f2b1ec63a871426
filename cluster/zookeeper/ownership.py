"""Takeover of nodes that other versions, nobody's credentials, or attackers created.

A new leader gives every node of its tree, and the root of the ensemble, the list of its path. The
first master of an ensemble that nobody has protected does so for all trees, before there is a
leader. Depends on `session`.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque

import structlog

from mesaform.common.errors import MesaformError
from mesaform.topology.zookeeper import ZK_AUTOSCALER_PATH, ZK_ENGINE_PATH, ZK_SERVICES_PATH
from mesaform.zookeeper.session import ZooKeeper

log = structlog.get_logger("zookeeper")

ROOTS = ("/", "/zookeeper", "/zookeeper/quota")
"""Nodes of no program. With `/` protected, only masters create further trees."""
TREES = tuple(
    "/" + path.strip("/").partition("/")[0]
    for path in (ZK_ENGINE_PATH, ZK_SERVICES_PATH, ZK_AUTOSCALER_PATH)
)
_CONTENDER = re.compile(r".*\d{10}")
_PARALLEL = 32


async def claim(zk: ZooKeeper) -> None:
    """Close an ensemble that is open to everyone, before the first candidacy; does not raise.

    Whoever came before the masters, as after a loss of all data, may have contenders in the place
    of a leader. They are deleted; those of Apache Mesos belong to the masters' user. `/` is
    protected last, so that an interrupted run is done again.
    """
    if zk.credentials is None:
        return
    try:
        if not await zk.is_open("/"):
            return
        for tree in TREES:
            await zk.ensure(tree)
            await _close_tree(zk, tree)
        for root in reversed(ROOTS):
            await zk.protect(root)
    except MesaformError as error:
        log.warning("ensemble_not_claimed", error=str(error))


async def protect_tree(zk: ZooKeeper, path: str) -> None:
    """Protect `ROOTS` and all nodes of the tree in which `path` lies; does not raise.

    Without credentials nothing happens.
    """
    if zk.credentials is None:
        return
    try:
        await zk.ensure(ZK_ENGINE_PATH)  # an agent of Apache Mesos ends if it may not create it
        changed = sum([await zk.protect(root) for root in ROOTS])
        changed += await _protect_below(zk, "/" + path.strip("/").partition("/")[0])
    except MesaformError as error:
        log.warning("nodes_not_protected", tree=path, error=str(error))
        return
    if changed:
        log.info("nodes_protected", tree=path, count=changed)


async def _close_tree(zk: ZooKeeper, top: str) -> None:
    """Close each node of a tree to others from the top on, and delete contenders of others."""
    waiting = deque([top])
    while waiting:
        path = waiting.popleft()
        if _CONTENDER.fullmatch(path) and not await zk.owns(path):
            log.warning("foreign_contender_deleted", path=path)
            await _delete_tree(zk, path)
            continue
        await zk.protect(path)
        waiting += [f"{path}/{name}" for name in await zk.children(path)]


async def _delete_tree(zk: ZooKeeper, top: str) -> None:
    paths = [top]
    for path in paths:  # it grows
        await zk.protect(path)
        paths += [f"{path}/{name}" for name in await zk.children(path)]
    for path in reversed(paths):
        await zk.delete(path)


async def _protect_below(zk: ZooKeeper, top: str) -> int:
    """The number of nodes of a tree that had another list."""
    waiting, changed = deque([top]), 0
    while waiting:
        batch = [waiting.popleft() for _ in range(min(_PARALLEL, len(waiting)))]
        changed += sum(await asyncio.gather(*(zk.protect(path) for path in batch)))
        below = await asyncio.gather(*(zk.children(path) for path in batch))
        for path, names in zip(batch, below, strict=True):
            waiting += [f"{path}/{name}" for name in names]
    return changed
