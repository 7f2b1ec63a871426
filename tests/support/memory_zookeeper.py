"""ZooKeeper in memory for simulations: the calls of `ZooKeeper` that stores make, without a server.

`step` is called before and after each call takes effect; an error that it raises is the call's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from mesaform.zookeeper.session import (
    CreateNode,
    DeleteNode,
    Operation,
    VersionConflict,
    WriteNode,
)


class MemoryZooKeeper:
    def __init__(self, step: Callable[[], None] = lambda: None) -> None:
        self.nodes: dict[str, tuple[bytes, int]] = {}
        self._step = step

    async def sync(self, path: str) -> None:
        self._step()

    async def get(self, path: str) -> tuple[bytes, int] | None:
        self._step()
        return self.nodes.get(path)

    async def children(self, path: str) -> list[str]:
        self._step()
        below = (name[len(path) + 1 :] for name in self.nodes if name.startswith(f"{path}/"))
        return sorted({name.partition("/")[0] for name in below})

    async def put(self, path: str, data: bytes, version: int = -1) -> int:
        self._step()
        known = self.nodes.get(path)
        if version >= 0 and (known is None or known[1] != version):
            raise VersionConflict("another version", where=path)
        self.nodes[path] = (data, 0 if known is None else known[1] + 1)
        self._step()
        return self.nodes[path][1]

    async def delete(self, path: str) -> None:
        self._step()
        self.nodes.pop(path, None)
        self._step()

    async def transact(self, operations: Sequence[Operation]) -> None:
        self._step()
        nodes = dict(self.nodes)
        for operation in operations:
            match operation:
                case CreateNode(path=path, data=data):
                    nodes[path] = (data, 0)
                case WriteNode(path=path, data=data):
                    nodes[path] = (data, nodes[path][1] + 1)
                case DeleteNode(path=path):
                    del nodes[path]
        self.nodes = nodes
        self._step()
