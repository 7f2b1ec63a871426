"""A ZooKeeper session for asyncio, on top of kazoo.

kazoo runs the session in its own threads; this module delivers results and watches on the event
loop. It has no recipes, locks or caches; elections are in `election`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from kazoo.client import KazooClient
from kazoo.exceptions import (
    BadVersionError,
    ConnectionClosedError,
    ConnectionLoss,
    NodeExistsError,
    NoNodeError,
    NotEmptyError,
    OperationTimeoutError,
    RolledBackError,
    RuntimeInconsistency,
    SessionExpiredError,
    ZookeeperError,
)
from kazoo.handlers.threading import KazooTimeoutError
from kazoo.protocol.states import KazooState
from kazoo.retry import KazooRetry
from kazoo.security import Permissions

from mesaform.common.errors import MesaformError, Retryable
from mesaform.zookeeper.access import Credentials, acl_chooser, read_zk_url

State = Literal["connected", "suspended", "lost"]
"""As kazoo reports it. `suspended`: no connection, the session may still exist."""

CALL_TIMEOUT_S = 10.0
PUT_ATTEMPTS = 10
RECONNECT_DELAY_S = 0.1
RECONNECT_DELAY_MAX_S = 1.0

_STATES: dict[str, State] = {
    KazooState.CONNECTED: "connected",
    KazooState.SUSPENDED: "suspended",
    KazooState.LOST: "lost",
}
_CONFLICTS = (BadVersionError, NodeExistsError, NoNodeError)
_NOT_CARRIED_OUT = (RolledBackError, RuntimeInconsistency)
"""What kazoo reports of the operations of a transaction that another operation made fail."""

_TRANSIENT = (
    ConnectionLoss,
    ConnectionClosedError,
    SessionExpiredError,
    OperationTimeoutError,
    KazooTimeoutError,
    TimeoutError,
)

logging.getLogger("kazoo").setLevel(logging.ERROR)


class ZooKeeperUnavailable(Retryable):
    """The ensemble did not answer in time; a write may or may not have happened."""


class VersionConflict(MesaformError):
    """Another client wrote the node after it was read."""


class NodeNotEmpty(MesaformError):
    """A node with children cannot be deleted. The same call fails until its children are gone."""


class ZooKeeperRefused(MesaformError):
    """The ensemble refused an operation for good, such as for want of a right."""


@dataclass(frozen=True, slots=True)
class CreateNode:
    """Part of a transaction: create a persistent node that must not exist; its parent must."""

    path: str
    data: bytes


@dataclass(frozen=True, slots=True)
class WriteNode:
    """Part of a transaction: write a node that must exist. Version -1 stands for any."""

    path: str
    data: bytes
    version: int = -1


@dataclass(frozen=True, slots=True)
class DeleteNode:
    """Part of a transaction: delete a node that must exist. Version -1 stands for any."""

    path: str
    version: int = -1


Operation: TypeAlias = CreateNode | WriteNode | DeleteNode


@dataclass(frozen=True, slots=True)
class _Watch:
    """Calls `function` on the event loop. kazoo keeps equal watches of a node once."""

    loop: asyncio.AbstractEventLoop
    function: Callable[[], None]

    def __call__(self, _event: object) -> None:
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self.function)


def split_zk_url(url: str) -> tuple[str, str]:
    """Split `zk://a:1,b:2/mesos` into hosts `a:1,b:2` and path `/mesos` (`access.read_zk_url`).

    Raises:
        BadInput: the URL has another form.

    """
    parts = read_zk_url(url)
    return parts.hosts, parts.path


class ZooKeeper:
    """A session that is renewed until `stop`. Create it and call `start` in a running loop.

    Args:
        hosts: `a:2181,b:2181`.
        session_timeout_s: how long the ensemble keeps the session's ephemeral nodes after its last
            heartbeat.
        credentials: the user who owns what this session creates; None: nodes are open.

    """

    def __init__(
        self,
        hosts: str,
        *,
        session_timeout_s: float = 4.5,
        credentials: Credentials | None = None,
    ) -> None:
        self.hosts = hosts
        self.credentials = credentials
        self._acl_of = acl_chooser(credentials)
        self.session_timeout_s = session_timeout_s
        self.state: State = "lost"
        self._changed = asyncio.Event()
        self._suspension: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        retry = KazooRetry(
            max_tries=-1, delay=RECONNECT_DELAY_S, backoff=2, max_delay=RECONNECT_DELAY_MAX_S
        )
        self._client = KazooClient(
            hosts=hosts,
            timeout=session_timeout_s,
            connection_retry=retry,
            auth_data=credentials.auth_data if credentials else None,
        )

    @property
    def session_id(self) -> int:
        """The id that the ensemble records as owner of this session's ephemeral nodes."""
        identity = self._client.client_id
        return int(identity[0]) if identity else 0

    async def start(self, timeout_s: float = 60.0) -> None:
        """Open the session.

        Raises:
            ZooKeeperUnavailable: no server answered within `timeout_s`; no thread remains.

        """
        self._loop = asyncio.get_running_loop()
        self._client.add_listener(self._on_kazoo_state)
        connected = self._client.start_async()
        if not await asyncio.to_thread(connected.wait, timeout_s):
            await self.stop()
            raise ZooKeeperUnavailable("no ZooKeeper server answers", where=self.hosts, after_s=1.0)
        self._set_state("connected")

    async def stop(self) -> None:
        """End the session; the ensemble deletes its ephemeral nodes at once if it is reachable."""
        self._client.remove_listener(self._on_kazoo_state)
        await asyncio.to_thread(self._client.stop)
        await asyncio.to_thread(self._client.close)
        self._set_state("lost")

    async def wait_state_change(self) -> None:
        """Return when `state` next changes; one wait may cover several changes."""
        await self._changed.wait()

    async def wait_connected(self) -> None:
        """Return when the session is connected."""
        while self.state != "connected":
            await self.wait_state_change()

    async def get(self, path: str) -> tuple[bytes, int] | None:
        """Data and version, or None when there is no such node."""
        node = await self._call(self._client.get_async, path, absent=None)
        return None if node is None else (node[0], node[1].version)

    async def owner(self, path: str) -> int | None:
        """The session that owns an ephemeral node; 0 for a persistent node, None without a node."""
        stat = await self._call(self._client.exists_async, path, absent=None)
        return None if stat is None else int(stat.ephemeralOwner)

    async def put(
        self, path: str, data: bytes, version: int = -1, *, ephemeral: bool = False
    ) -> int:
        """Write a node, creating it and its parents if absent; returns its new version.

        Args:
            path: the node.
            data: its new data.
            version: -1 overwrites any version; 0 or more only that version.
            ephemeral: a node that is created belongs to this session.

        Raises:
            VersionConflict: the node has another version or does not exist, or others delete and
                create it all the time.
            ZooKeeperUnavailable: no answer; the write may or may not have happened.

        """
        for _ in range(PUT_ATTEMPTS):
            with contextlib.suppress(NodeExistsError):
                return await self._write_or_create(path, data, version, ephemeral=ephemeral)
        raise VersionConflict(f"deleted and created {PUT_ATTEMPTS} times meanwhile", where=path)

    async def _write_or_create(
        self, path: str, data: bytes, version: int, *, ephemeral: bool
    ) -> int:
        """Write a node, or create it if it is absent; NodeExistsError: it appeared meanwhile."""
        try:
            stat = await self._call(self._client.set_async, path, data, version)
        except NoNodeError:
            if version >= 0:
                raise VersionConflict("the node is gone", where=path) from None
        except BadVersionError:
            raise VersionConflict(f"no longer at version {version}", where=path) from None
        else:
            return int(stat.version)
        await self._create(path, data, ephemeral=ephemeral)
        return 0

    async def create(self, path: str, data: bytes) -> None:
        """Create a persistent node that must not exist yet.

        Raises:
            VersionConflict: the node exists.

        """
        try:
            await self._create(path, data)
        except NodeExistsError:
            raise VersionConflict("exists already", where=path) from None

    async def create_sequential(self, path_prefix: str, data: bytes) -> str:
        """Create an ephemeral node with the next sequence number; returns its full path."""
        return await self._create(path_prefix, data, ephemeral=True, sequence=True)

    async def _create(self, path: str, data: bytes, **kinds: bool) -> str:
        """Create a node, and its parents where they are absent, each with the list of its path."""
        acl = self._acl_of(path)
        try:
            return str(await self._call(self._client.create_async, path, data, acl, **kinds))
        except NoNodeError:
            await self.ensure(path.rpartition("/")[0])
            return str(await self._call(self._client.create_async, path, data, acl, **kinds))

    async def children(self, path: str, watch: Callable[[], None] | None = None) -> list[str]:
        """The sorted names below a node; empty when the node is absent.

        `watch` is called once, on the event loop, at the next change. The creation of an absent
        node is one. The same `watch` of several calls is kept once. A caller that reads again and
        again therefore gives the same one each time; others add up until the next change.
        """
        listener = _Watch(asyncio.get_running_loop(), watch) if watch else None
        while True:
            names = await self._call(self._client.get_children_async, path, listener, absent=None)
            if names is not None:
                return sorted(names)
            stat = await self._call(self._client.exists_async, path, listener, absent=None)
            if stat is None:
                return []

    def watch_count(self, path: str) -> int:
        """How many watches of a node wait for a change."""
        watchers = (self._client._child_watchers, self._client._data_watchers)  # noqa: SLF001
        return sum(len(by_path.get(path, ())) for by_path in watchers)

    async def sync(self, path: str) -> None:
        """Let later reads of this session see every write that happened before this call.

        A write of this session without an answer has happened by then, or it never will.
        """
        await self._call(self._client.sync_async, path)

    async def ensure(self, path: str) -> None:
        """Create a node without data, and its parents, unless they exist."""
        parts = path.strip("/").split("/")
        for end in range(1, len(parts) + 1):
            part = "/" + "/".join(parts[:end])
            if await self._call(self._client.exists_async, part, absent=None) is not None:
                continue
            with contextlib.suppress(NodeExistsError):
                await self._call(self._client.create_async, part, b"", self._acl_of(part))

    async def protect(self, path: str) -> bool:
        """Give a node the list of its path; whether it had another one.

        Without credentials, and for a node that is gone, nothing changes.
        """
        wanted = self._acl_of(path)
        answer = await self._call(self._client.get_acls_async, path, absent=None)
        if wanted is None or answer is None or set(answer[0]) == set(wanted):
            return False
        await self._call(self._client.set_acls_async, path, wanted, absent=None)
        return True

    async def owns(self, path: str) -> bool:
        """Whether the user of the credentials may do everything with a node."""
        wanted = self._acl_of(path)
        answer = await self._call(self._client.get_acls_async, path, absent=None)
        return wanted is not None and answer is not None and wanted[0] in answer[0]

    async def is_open(self, path: str) -> bool:
        """Whether everyone may create nodes below a node."""
        answer = await self._call(self._client.get_acls_async, path, absent=None)
        entries = answer[0] if answer is not None else []
        return any(
            entry.id.scheme == "world" and entry.perms & Permissions.CREATE for entry in entries
        )

    async def delete(self, path: str) -> None:
        """Delete a node. Idempotent."""
        await self._call(self._client.delete_async, path, absent=None)

    async def transact(self, operations: Sequence[Operation]) -> None:
        """Carry out all operations or none.

        Raises:
            VersionConflict: a node exists already, is gone, or has another version; nothing
                changed.
            NodeNotEmpty: a node to delete has children; nothing changed.
            ZooKeeperRefused: any other refusal; nothing changed, and a repetition is refused, too.
            ZooKeeperUnavailable: no answer; all or nothing may have happened.

        """
        request = self._client.transaction()
        for operation in operations:
            _add(request, operation)
        paths = ", ".join(operation.path for operation in operations)
        results = await self._call(lambda _: request.commit_async(), paths)
        for operation, result in zip(operations, results, strict=True):
            if isinstance(result, Exception) and not isinstance(result, _NOT_CARRIED_OUT):
                raise self._refusal(result, operation.path) from result
        if any(isinstance(result, Exception) for result in results):
            raise ZooKeeperRefused("a transaction was not carried out", where=paths)

    async def _call(
        self, function: Callable[..., Any], *args: Any, absent: Any = ..., **kwargs: Any
    ) -> Any:
        """Call a kazoo function and wait for its result on the loop.

        `absent` is the result for a node that does not exist; without it NoNodeError is raised.
        """
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Any] = loop.create_future()

        def arrived(result: Any) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(_settle, answer, result)

        try:
            function(*args, **kwargs).rawlink(arrived)
            # Not wait_for: on Python 3.11 it can swallow a cancellation.
            async with asyncio.timeout(CALL_TIMEOUT_S):
                return await answer
        except NoNodeError:
            if absent is ...:
                raise
            return absent
        except (NodeExistsError, BadVersionError):
            raise
        except (*_TRANSIENT, ZookeeperError) as error:
            raise self._refusal(error, str(args[0])) from error

    def _refusal(self, error: Exception, where: str) -> MesaformError:
        """The error of this project for one of kazoo's."""
        name = type(error).__name__
        if isinstance(error, _TRANSIENT):
            return ZooKeeperUnavailable(
                f"ZooKeeper does not answer ({name})", where=self.hosts, after_s=1.0
            )
        if isinstance(error, _CONFLICTS):
            return VersionConflict(f"refused: {name}", where=where)
        if isinstance(error, NotEmptyError):
            return NodeNotEmpty("the node has children", where=where)
        return ZooKeeperRefused(f"ZooKeeper refused: {name} {error}", where=where)

    def _on_kazoo_state(self, state: str) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._set_state, _STATES[state])

    def _set_state(self, state: State) -> None:
        if state == self.state:
            return
        self.state = state
        self._watch_suspension()
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _watch_suspension(self) -> None:
        if self._suspension is not None:
            self._suspension.cancel()
            self._suspension = None
        if self.state == "suspended" and self._loop is not None:
            self._suspension = self._loop.call_later(self.session_timeout_s, self._forget_zxid)

    def _forget_zxid(self) -> None:
        """Let every server take this client again, also one that has lost its data.

        A server refuses a client that has seen a later transaction than the server has, and closes
        the connection without a word. An ensemble that was emptied would refuse it for ever. After
        a whole session time-out the session has expired, or nobody could expire it; what may be
        read then is as old as with a new session.
        """
        self._suspension = None
        if self.state != "connected":
            self._client.last_zxid = 0


def _add(request: Any, operation: Operation) -> None:
    match operation:
        case CreateNode(path=path, data=data):
            request.create(path, data)
        case WriteNode(path=path, data=data, version=version):
            request.set_data(path, data, version)
        case DeleteNode(path=path, version=version):
            request.delete(path, version)


def _settle(answer: asyncio.Future[Any], result: Any) -> None:
    if answer.done():
        return
    if result.exception is not None:
        answer.set_exception(result.exception)
    else:
        answer.set_result(result.value)
