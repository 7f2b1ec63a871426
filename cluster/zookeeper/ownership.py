"""Migration of nodes that other versions, or nobody's credentials, created.

A new leader gives every node of its tree, and the root of the ensemble, the list of its path.
Depends on `session`.
"""

from __future__ import annotations

import asyncio
from collections import deque

import structlog

from mesaform.common.errors import MesaformError
from mesaform.topology.zookeeper import ZK_ENGINE_PATH
from mesaform.zookeeper.session import ZooKeeper

log = structlog.get_logger("zookeeper")

ROOTS = ("/", "/zookeeper", "/zookeeper/quota")
"""Nodes of no program. With `/` protected, only masters create further trees."""
_PARALLEL = 32


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
