"""One framework's subscription to whichever master leads: it survives leader changes, broken streams and silence.

Nothing about offers or tasks is decided here; the events and calls are in `scheduler_api`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import aiohttp
import msgspec
from msgspec import structs
from yarl import URL

from mesaform.common.errors import ClusterUnreachable, NotFound, Permanent, Retryable
from mesaform.mesos import recordio
from mesaform.mesos.messages import FrameworkInfo, Id
from mesaform.mesos.scheduler_api import Call, Event, Subscribe, decode_event, encode_call

PATH = "/api/v1/scheduler"
MISSED_HEARTBEATS = 5
DEFAULT_HEARTBEAT_S = 15.0
CONNECT_TIMEOUT_S = 3.0
ANSWER_TIMEOUT_S = 10.0
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 2.0
MAX_REDIRECTS = 5
JSON = "application/json"
TRANSIENT = (307, 308, 502, 503, 504)
REMOVED = "Framework has been removed"

Handle = Callable[[Event], Awaitable[None]]


class FrameworkRemoved(NotFound):
    """The master has removed this framework id (torn down, or its failover timeout passed); only a new id can subscribe."""


class FrameworkFailedOver(Permanent):
    """Another scheduler subscribed with this framework id; this one must stop."""


class SchedulerClient:
    """A framework's connection.

    Args:
        leader: finds the leading master's base URL, such as `http://10.0.0.10:5050`; asked before each subscription.
        info: the framework; with an `id` the first subscription already takes that id.
        session: a client session owned by the caller.
        report: called with a line about each lost and regained connection.

    """

    def __init__(
        self,
        leader: Callable[[], Awaitable[str]],
        info: FrameworkInfo,
        session: aiohttp.ClientSession,
        report: Callable[[str], None] = lambda _line: None,
    ) -> None:
        self._leader = leader
        self._info = info
        self._session = session
        self._report = report
        self._url: URL | None = None  # set exactly while subscribed
        self._stream_id = ""
        self._heartbeat_s = DEFAULT_HEARTBEAT_S
        self._pause_s = FIRST_PAUSE_S

    @property
    def framework_id(self) -> str | None:
        """The framework's id; None until the first SUBSCRIBED."""
        return self._info.id.value if self._info.id else None

    @property
    def subscribed(self) -> bool:
        """Whether calls can be made now."""
        return self._url is not None

    async def run(self, handle: Handle) -> None:
        """Subscribe, deliver events one after the other, and subscribe again with the same id whenever the stream ends.

        SUBSCRIBED is delivered after each subscription, so reconcile there. `handle` may raise `Retryable` (a call of its own did
        not get through): the stream is then given up and made anew. Never returns.

        Raises:
            FrameworkRemoved: the framework id is not usable any more.
            FrameworkFailedOver: another scheduler took this id over.
            Permanent: the master refuses this framework.

        """
        while True:
            try:
                await self._subscribe_once(handle)
                why = "the stream ended"
            except (
                ClusterUnreachable,
                Retryable,
                recordio.FramingError,
                msgspec.DecodeError,
            ) as error:
                why = str(error)
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                why = f"{type(error).__name__}: {error}"
            finally:
                self._url = None
            self._report(f"not subscribed: {why}; again in {self._pause_s:g} s")
            await asyncio.sleep(self._pause_s)
            self._pause_s = min(LONGEST_PAUSE_S, self._pause_s * 2)

    async def call(self, call: Call) -> None:
        """Make one call on the current subscription. Accepted means only that the master has it, as in Mesos.

        Raises:
            Retryable: there is no subscription now, or the master did not take it; after a new SUBSCRIBED, reconcile.
            Permanent: the master says that the call is wrong.

        """
        if self._url is None or self._info.id is None:
            raise Retryable(f"{call.type}: not subscribed", after_s=self._pause_s)
        body = encode_call(structs.replace(call, framework_id=self._info.id))
        headers = {"Content-Type": JSON, "Accept": JSON, "Mesos-Stream-Id": self._stream_id}
        timeout = aiohttp.ClientTimeout(total=ANSWER_TIMEOUT_S, sock_connect=CONNECT_TIMEOUT_S)
        url = self._url
        try:
            async with self._session.post(
                url, data=body, headers=headers, timeout=timeout, allow_redirects=False
            ) as response:
                if response.status in (200, 202):
                    return
                text = await response.text()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise Retryable(
                f"{call.type}: {type(error).__name__}: {error}",
                after_s=self._pause_s,
                where=str(url),
            ) from None
        self._refuse(call.type or "UNKNOWN", response.status, text, url)

    async def _subscribe_once(self, handle: Handle) -> None:
        url = URL(await self._leader()).with_path(PATH)
        for _ in range(MAX_REDIRECTS):
            async with await self._open(url) as response:
                if response.status not in (307, 308):
                    await self._read(url, response, handle)
                    return
                url = url.join(URL(response.headers.get("Location", "")))
        raise ClusterUnreachable("masters redirect to one another", where=str(url))

    async def _open(self, url: URL) -> aiohttp.ClientResponse:
        body = encode_call(
            Call(
                type="SUBSCRIBE",
                framework_id=self._info.id,
                subscribe=Subscribe(framework_info=self._info),
            )
        )
        headers = {"Content-Type": JSON, "Accept": JSON}
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S)
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            return await self._session.post(
                url, data=body, headers=headers, timeout=timeout, allow_redirects=False
            )

    async def _read(self, url: URL, response: aiohttp.ClientResponse, handle: Handle) -> None:
        if response.status != 200:
            self._refuse("SUBSCRIBE", response.status, await response.text(), url)
        self._stream_id = response.headers.get("Mesos-Stream-Id", "")
        self._heartbeat_s = DEFAULT_HEARTBEAT_S
        decoder = recordio.Decoder()
        while True:
            try:
                async with asyncio.timeout(MISSED_HEARTBEATS * self._heartbeat_s):
                    chunk = await response.content.readany()
            except TimeoutError:
                raise Retryable(
                    f"no heartbeat for {MISSED_HEARTBEATS * self._heartbeat_s:g} s",
                    after_s=0,
                    where=str(url),
                ) from None
            if not chunk:
                return
            for record in decoder.feed(chunk):
                await self._deliver(url, decode_event(record), handle)

    async def _deliver(self, url: URL, event: Event, handle: Handle) -> None:
        if event.subscribed is not None:
            self._info = structs.replace(
                self._info, id=Id(value=event.subscribed.framework_id.value)
            )
            self._heartbeat_s = event.subscribed.heartbeat_interval_seconds
            self._url = url
            self._pause_s = FIRST_PAUSE_S
            self._report(f"subscribed to {url.host}:{url.port} as {self.framework_id}")
        await handle(event)
        if event.error is not None:
            self._fail(event.error.message, url)

    def _fail(self, message: str, url: URL) -> None:
        if message == REMOVED:
            raise FrameworkRemoved(
                message,
                where=str(url),
                fix="subscribe without an id; the tasks of the old one are gone",
            )
        if message == "Framework failed over":
            raise FrameworkFailedOver(
                message, where=str(url), fix="another scheduler runs with this framework id"
            )
        raise Permanent(message, where=str(url))

    def _refuse(self, what: str, status: int, text: str, url: URL) -> None:
        message = f"{what}: {status} {text.strip()}"
        stale = status == 403 or (
            status == 400 and ("stream ID" in text or "cannot be found" in text)
        )
        if status in TRANSIENT or (stale and what != "SUBSCRIBE"):
            raise Retryable(message, after_s=self._pause_s, where=str(url))
        raise Permanent(message, where=str(url))
