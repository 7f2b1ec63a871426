"""One ZooKeeper session for asyncio. kazoo keeps the session in its own threads; here its answers and watches arrive on the loop.

No recipes here (elections are next door), no locks, no caches.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Literal

from kazoo.client import KazooClient
from kazoo.exceptions import (
    BadVersionError,
    ConnectionClosedError,
    ConnectionLoss,
    NodeExistsError,
    NoNodeError,
    OperationTimeoutError,
    SessionExpiredError,
    ZookeeperError,
)
from kazoo.handlers.threading import KazooTimeoutError
from kazoo.protocol.states import KazooState
from kazoo.retry import KazooRetry

from mesaform.common.errors import BadInput, MesaformError, Retryable

State = Literal["connected", "suspended", "lost"]
CALL_TIMEOUT_S = 10.0
RECONNECT_DELAY_S = 0.1
RECONNECT_DELAY_MAX_S = 1.0

_STATES: dict[str, State] = {
    KazooState.CONNECTED: "connected",
    KazooState.SUSPENDED: "suspended",
    KazooState.LOST: "lost",
}
_PASSING = (
    ConnectionLoss,
    ConnectionClosedError,
    SessionExpiredError,
    OperationTimeoutError,
    KazooTimeoutError,
    TimeoutError,
)

logging.getLogger("kazoo").setLevel(logging.ERROR)


class ZooKeeperUnavailable(Retryable):
    """No answer from the ensemble in time; whether a write took place is unknown."""


class VersionConflict(MesaformError):
    """Somebody else wrote the node since it was read."""


def split_zk_url(url: str) -> tuple[str, str]:
    """`zk://a:1,b:2/mesos` as (`a:1,b:2`, `/mesos`).

    Raises:
        BadInput: it has another form.

    """
    scheme, separator, rest = url.partition("://")
    hosts, slash, path = rest.partition("/")
    if scheme != "zk" or not separator or not hosts or not slash or not path:
        raise BadInput(f"{url!r} is not a ZooKeeper URL", fix="write zk://host:port,host:port/path")
    return hosts.rpartition("@")[2], "/" + path.rstrip("/")


class ZooKeeper:
    """A session that is renewed for ever. Make it and call `start` inside a running loop.

    Args:
        hosts: `a:2181,b:2181`.
        session_timeout_s: how long the ensemble keeps the session's ephemeral nodes after the last word from here.

    """

    def __init__(self, hosts: str, *, session_timeout_s: float = 6.0) -> None:
        self.hosts = hosts
        self.session_timeout_s = session_timeout_s
        self.state: State = "lost"
        self._changed = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        retry = KazooRetry(
            max_tries=-1, delay=RECONNECT_DELAY_S, backoff=2, max_delay=RECONNECT_DELAY_MAX_S
        )
        self._client = KazooClient(hosts=hosts, timeout=session_timeout_s, connection_retry=retry)

    @property
    def session_id(self) -> int:
        """The owner that the ensemble writes on this session's ephemeral nodes."""
        identity = self._client.client_id
        return int(identity[0]) if identity else 0

    async def start(self, timeout_s: float = 60.0) -> None:
        """Open the session.

        Raises:
            ZooKeeperUnavailable: no server of the ensemble answered within `timeout_s`; nothing is left running.

        """
        self._loop = asyncio.get_running_loop()
        self._client.add_listener(self._on_kazoo_state)
        connected = self._client.start_async()
        if not await asyncio.to_thread(connected.wait, timeout_s):
            await self.stop()
            raise ZooKeeperUnavailable("no ZooKeeper server answers", where=self.hosts, after_s=1.0)
        self._set_state("connected")

    async def stop(self) -> None:
        """End the session; its ephemeral nodes go at once when the ensemble can be told."""
        self._client.remove_listener(self._on_kazoo_state)
        await asyncio.to_thread(self._client.stop)
        await asyncio.to_thread(self._client.close)
        self._set_state("lost")

    async def wait_state_change(self) -> None:
        """Return when `state` next changes; one wait may cover several changes."""
        await self._changed.wait()

    async def wait_connected(self) -> None:
        """Return when the session is up."""
        while self.state != "connected":
            await self.wait_state_change()

    async def get(self, path: str) -> tuple[bytes, int] | None:
        """Data and version, or None when there is no such node."""
        found = await self._call(self._client.get_async, path, absent=None)
        return None if found is None else (found[0], found[1].version)

    async def owner(self, path: str) -> int | None:
        """The session that owns an ephemeral node (0 for a lasting one), or None when there is none."""
        stat = await self._call(self._client.exists_async, path, absent=None)
        return None if stat is None else int(stat.ephemeralOwner)

    async def put(
        self, path: str, data: bytes, version: int = -1, *, ephemeral: bool = False
    ) -> int:
        """Write a node, making it and its parents when absent; returns its new version.

        Args:
            path: the node.
            data: all of its data.
            version: -1 writes over anything; 0 or more only over exactly that version.
            ephemeral: when the node is made, tie it to this session.

        Raises:
            VersionConflict: the node's version is another one, or it is gone.
            ZooKeeperUnavailable: no answer; the write may or may not have happened.

        """
        try:
            stat = await self._call(self._client.set_async, path, data, version)
        except NoNodeError:
            if version >= 0:
                raise VersionConflict("the node is gone", where=path) from None
        except BadVersionError:
            raise VersionConflict(f"no longer at version {version}", where=path) from None
        else:
            return int(stat.version)
        try:
            await self._call(
                self._client.create_async, path, data, ephemeral=ephemeral, makepath=True
            )
        except NodeExistsError:
            return await self.put(path, data, version, ephemeral=ephemeral)
        return 0

    async def create(self, path: str, data: bytes) -> None:
        """Make a lasting node that must not exist yet.

        Raises:
            VersionConflict: it exists.

        """
        try:
            await self._call(self._client.create_async, path, data, makepath=True)
        except NodeExistsError:
            raise VersionConflict("exists already", where=path) from None

    async def create_sequential(self, path_prefix: str, data: bytes) -> str:
        """Make an ephemeral node with the next sequence number; returns its full path."""
        return str(
            await self._call(
                self._client.create_async,
                path_prefix,
                data,
                ephemeral=True,
                sequence=True,
                makepath=True,
            )
        )

    async def children(self, path: str, watch: Callable[[], None] | None = None) -> list[str]:
        """The names below a node, sorted; [] when it is absent. `watch` is called once on the loop at the next change."""

        def fired(_event: object) -> None:
            if watch is not None and self._loop is not None and not self._loop.is_closed():
                self._loop.call_soon_threadsafe(watch)

        names = await self._call(
            self._client.get_children_async, path, fired if watch else None, absent=[]
        )
        return sorted(names)

    async def ensure(self, path: str) -> None:
        """Make a node without data, and its parents, unless they exist."""
        await self._call(self._client.ensure_path_async, path)

    async def delete(self, path: str) -> None:
        """Remove a node. Idempotent."""
        await self._call(self._client.delete_async, path, absent=None)

    async def _call(
        self, function: Callable[..., Any], *args: Any, absent: Any = ..., **kwargs: Any
    ) -> Any:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Any] = loop.create_future()

        def arrived(result: Any) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(_settle, answer, result)

        try:
            function(*args, **kwargs).rawlink(arrived)
            async with asyncio.timeout(
                CALL_TIMEOUT_S
            ):  # not wait_for: on Python 3.11 it can swallow a cancellation
                return await answer
        except NoNodeError:
            if absent is ...:
                raise
            return absent
        except _PASSING as error:
            raise ZooKeeperUnavailable(
                f"ZooKeeper does not answer ({type(error).__name__})", where=self.hosts, after_s=1.0
            ) from error
        except ZookeeperError as error:
            if isinstance(error, NodeExistsError | BadVersionError):
                raise
            raise MesaformError(
                f"ZooKeeper refused: {type(error).__name__} {error}", where=str(args[0])
            ) from error

    def _on_kazoo_state(self, state: str) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._set_state, _STATES[state])

    def _set_state(self, state: State) -> None:
        if state == self.state:
            return
        self.state = state
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


def _settle(answer: asyncio.Future[Any], result: Any) -> None:
    if answer.done():
        return
    if result.exception is not None:
        answer.set_exception(result.exception)
    else:
        answer.set_result(result.value)
