"""Client of the v1 scheduler API: one framework's subscription at whichever master leads.

The subscription survives leader changes, broken streams and silent masters. This module decides
nothing about offers or tasks; the structs of events and calls are in `scheduler_api`. Depends on
aiohttp and msgspec.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import aiohttp
import msgspec
from msgspec import structs
from yarl import URL

from mesaform.common.backoff import Backoff, Delay
from mesaform.common.errors import ClusterUnreachable, NotFound, Permanent, Retryable
from mesaform.mesos import recordio
from mesaform.mesos.credential import Credential
from mesaform.mesos.messages import FrameworkInfo, Id
from mesaform.mesos.scheduler_api import Call, Event, Subscribe, decode_event, encode_call

PATH = "/api/v1/scheduler"
MISSED_HEARTBEATS = 5  # as many as Mesos' own scheduler library waits for
DEFAULT_HEARTBEAT_S = 15.0
CONNECT_TIMEOUT_S = 3.0
ANSWER_TIMEOUT_S = 10.0
RECONNECT = Backoff(first_s=0.1, cap_s=2.0)
"""Pauses between subscriptions. Short: a leader change takes seconds and stops all launches."""
MAX_REDIRECTS = 5
JSON = "application/json"
TRANSIENT_STATUSES = (307, 308, 502, 503, 504)
REMOVED = "Framework has been removed"  # the text of Mesos' ERROR event

Handle = Callable[[Event], Awaitable[None]]


class FrameworkRemoved(NotFound):
    """The master removed this framework id: it was torn down, or its failover timeout passed.

    Only a new id can subscribe.
    """


class FrameworkFailedOver(Permanent):
    """Another scheduler subscribed with this framework id; this one must stop."""


class SchedulerClient:
    """A framework's connection.

    Args:
        leader: gives the leading master's base URL, such as `http://10.0.0.10:5050`. It is called
            before each subscription.
        info: the framework. With an `id`, the first subscription already takes that id.
        session: the caller closes it.
        report: called with a line about each lost and regained connection.
        credential: proves the framework's principal, which is then the credential's.

    """

    def __init__(
        self,
        leader: Callable[[], Awaitable[str]],
        info: FrameworkInfo,
        session: aiohttp.ClientSession,
        report: Callable[[str], None] = lambda _line: None,
        credential: Credential | None = None,
    ) -> None:
        self._leader = leader
        self._info = structs.replace(info, principal=credential.principal) if credential else info
        self._login = credential.headers if credential else {}
        self._session = session
        self._report = report
        self._url: URL | None = None  # set exactly while subscribed
        self._stream_id = ""
        self._heartbeat_s = DEFAULT_HEARTBEAT_S
        self._delay = Delay()
        self._is_torn_down = False

    @property
    def framework_id(self) -> str | None:
        """The framework's id; None until the first SUBSCRIBED."""
        return self._info.id.value if self._info.id else None

    @property
    def is_subscribed(self) -> bool:
        """Whether calls can be made now."""
        return self._url is not None

    async def run(self, handle: Handle) -> None:
        """Subscribe and deliver events in order; subscribe again with the same id after a break.

        SUBSCRIBED is delivered after each subscription: a framework reconciles there. When `handle`
        raises `Retryable` (a call of its own failed), the stream is closed and reopened. This
        returns when the stream ends after the call TEARDOWN: Apache Mesos closes it then.

        Raises:
            FrameworkRemoved: the framework id is not usable any more.
            FrameworkFailedOver: another scheduler subscribed with this id.
            Permanent: the master refuses this framework.

        """
        while True:
            try:
                await self._subscribe_once(handle)
                cause = "the stream ended"
            except (
                ClusterUnreachable,
                Retryable,
                recordio.FramingError,
                msgspec.DecodeError,
            ) as error:
                cause = str(error)
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                cause = f"{type(error).__name__}: {error}"
            finally:
                self._url = None
            if self._is_torn_down:
                return
            self._delay = self._delay.after_failure(RECONNECT, now=0.0)
            pause_s = self._delay.until
            self._report(f"not subscribed: {cause}; again in {pause_s:g} s")
            await asyncio.sleep(pause_s)

    async def call(self, call: Call) -> None:
        """Make one call on the current subscription.

        As in Mesos, a return means that the master received the call, not that it had an effect.

        Raises:
            Retryable: there is no subscription now, or the master did not take the call. Reconcile
                after the next SUBSCRIBED.
            Permanent: the master rejects the call as invalid.

        """
        is_teardown = call.type == "TEARDOWN"
        if is_teardown:  # the stream may end before the answer
            self._is_torn_down = True
        try:
            await self._post(call)
        except (Retryable, Permanent):
            if is_teardown:
                self._is_torn_down = False
            raise

    async def _post(self, call: Call) -> None:
        if self._url is None or self._info.id is None:
            raise Retryable(f"{call.type}: not subscribed", after_s=self._retry_s)
        body = encode_call(structs.replace(call, framework_id=self._info.id))
        stream = {"Mesos-Stream-Id": self._stream_id}
        headers = {"Content-Type": JSON, "Accept": JSON, **stream, **self._login}
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
                after_s=self._retry_s,
                where=str(url),
            ) from None
        self._raise_refusal(call.type or "UNKNOWN", response.status, text, url)

    @property
    def _retry_s(self) -> float:
        return RECONNECT.delay_s(self._delay.failures + 1)

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
        headers = {"Content-Type": JSON, "Accept": JSON, **self._login}
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S)
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            return await self._session.post(
                url, data=body, headers=headers, timeout=timeout, allow_redirects=False
            )

    async def _read(self, url: URL, response: aiohttp.ClientResponse, handle: Handle) -> None:
        if response.status != 200:
            self._raise_refusal("SUBSCRIBE", response.status, await response.text(), url)
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
            self._delay = self._delay.after_success()
            self._report(f"subscribed to {url.host}:{url.port} as {self.framework_id}")
        await handle(event)
        if event.error is not None and not self._is_torn_down:
            self._raise_error(event.error.message, url)

    def _raise_error(self, message: str, url: URL) -> None:
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

    def _raise_refusal(self, call_type: str, status: int, text: str, url: URL) -> None:
        message = f"{call_type}: {status} {text.strip()}"
        is_stale = status == 403 or (
            status == 400 and ("stream ID" in text or "cannot be found" in text)
        )
        if status in TRANSIENT_STATUSES or (is_stale and call_type != "SUBSCRIBE"):
            raise Retryable(message, after_s=self._retry_s, where=str(url))
        raise Permanent(message, where=str(url))
