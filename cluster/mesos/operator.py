"""Client of the v1 operator API, at whichever of the given masters leads.

An operator's machine may reach the masters only by the addresses it was given (a public address, a
tunnel). The client therefore asks each given address and follows a redirect only when none of them
leads. The structs of the calls are in `operator_api`. Depends on aiohttp and msgspec.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import aiohttp
import msgspec
from yarl import URL

from mesaform.common.errors import CloudError, ClusterUnreachable, NotFound, Permanent, Retryable
from mesaform.common.json_types import JsonObject, as_list, as_object
from mesaform.mesos.messages import DurationInfo, ident
from mesaform.mesos.operator_api import (
    AgentCall,
    DrainAgent,
    Duration,
    GetMetrics,
    OperatorCall,
    encode_call,
)

CONNECT_TIMEOUT_S = 2.0
CALL_TIMEOUT_S = 15.0
METRICS_TIMEOUT_NS = 5_000_000_000
OpenSink = Callable[[], Callable[[bytes], None]]
"""Called for each attempt at a streamed call; it returns what takes the answer's bytes."""
_TIMEOUT = aiohttp.ClientTimeout(
    total=CALL_TIMEOUT_S, connect=CONNECT_TIMEOUT_S, sock_connect=CONNECT_TIMEOUT_S
)
SILENCE_S = 45.0
"""Seconds without data after which an event stream is broken: three heartbeats."""

_STREAM_TIMEOUT = aiohttp.ClientTimeout(
    total=None, sock_connect=CONNECT_TIMEOUT_S, sock_read=SILENCE_S
)
_HEADERS = {"Accept": "application/json", "Content-Type": "application/json"}
_CONNECTION_ERRORS = (
    aiohttp.ClientConnectionError,
    aiohttp.ClientPayloadError,
    asyncio.TimeoutError,
    OSError,
)
_REDIRECTS = frozenset({301, 302, 307, 308})


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    body: bytes
    location: str

    @property
    def text(self) -> str:
        return self.body.decode("utf-8", "replace").strip()

    @property
    def is_from_a_leader(self) -> bool:
        """Whether the master leads.

        A standby answers 307. A master that knows no leader, and a leader that still recovers,
        answer 503 with a text that says so.
        """
        if self.status == 503:
            text = self.text.lower()
            return bool(text) and not any(phrase in text for phrase in ("leader", "recover"))
        return self.status not in _REDIRECTS


@dataclass(frozen=True, slots=True)
class _Request:
    """A call: its body, and what takes the bytes of a streamed answer."""

    payload: bytes
    open_sink: OpenSink | None
    limits: aiohttp.ClientTimeout


@dataclass(slots=True)
class _Attempts:
    """The outcome of each attempt, and the targets of redirects."""

    outcomes: list[str] = field(default_factory=list)
    locations: list[str] = field(default_factory=list)

    def add(self, master: str, answer: _Answer) -> None:
        if answer.location:
            # Mesos redirects to `//host:port/path`; joining with the asked URL supplies the scheme.
            target = URL(master).join(URL(answer.location, encoded=True))
            base = f"{target.scheme}://{target.host}:{target.port}"
            self.locations.append(base)
            self.outcomes.append(f"{master} stands by and points to {base}")
        else:
            self.outcomes.append(
                f"{master} answered {answer.status}: {answer.text or 'no reason given'}"
            )


class OperatorClient:
    """Calls the leader among `masters` (base URLs such as `http://10.0.0.10:5050`).

    The caller closes the session. Calls may run concurrently. When a connection breaks before the
    answer arrives, the call may have taken effect; every call used here may be repeated.
    """

    def __init__(self, masters: Sequence[str], session: aiohttp.ClientSession) -> None:
        self._masters = [master.rstrip("/") for master in masters]
        self._session = session
        self._last_leader: str | None = None

    async def call(self, type_: str, **body: object) -> JsonObject:
        """The leader's whole answer (`{"type": "GET_AGENTS", "get_agents": {…}}`).

        It is `{}` for an answer without a body. Each error carries the server's own message.

        Raises:
            ClusterUnreachable: no master leads.
            NotFound: the server answered 404.
            Retryable: the server answered 409, 429 or 5xx.
            Permanent: the server answered another error.

        """
        return await self._call(type_, msgspec.json.encode({"type": type_, **body}))

    async def stream(self, type_: str, open_sink: OpenSink) -> None:
        """Pass on the leader's answer to a call without a body, chunk by chunk.

        This is for answers that are too large for the memory. Raises as `call` does, and whatever
        the sink raises.
        """
        master, answer = await self._ask_leader(encode_call(OperatorCall(type=type_)), open_sink)
        if answer.status != 200:
            raise _error(type_, master, answer)

    async def subscribe(self, open_sink: OpenSink) -> None:
        """Pass on the leader's event stream in RecordIO, chunk by chunk, until it ends.

        It ends with an error of aiohttp after `SILENCE_S` without data; masters send a heartbeat
        every 15 s. Raises as `stream` does.
        """
        payload = encode_call(OperatorCall(type="SUBSCRIBE"))
        master, answer = await self._ask_leader(payload, open_sink, _STREAM_TIMEOUT)
        if answer.status != 200:
            raise _error("SUBSCRIBE", master, answer)

    async def leader(self) -> str:
        """The base URL at which the leader answers.

        Raises:
            ClusterUnreachable: no master leads.

        """
        master, _ = await self._ask_leader(encode_call(OperatorCall(type="GET_HEALTH")))
        return master

    async def get_agents(self) -> JsonObject:
        """`{"agents": [{"agent_info": …, "active": …, …}], "recovered_agents": […]}`."""
        return await self._read(OperatorCall(type="GET_AGENTS"))

    async def get_tasks(self) -> JsonObject:
        """`{"tasks": […], "completed_tasks": […], "unreachable_tasks": […], …}`."""
        return await self._read(OperatorCall(type="GET_TASKS"))

    async def get_frameworks(self) -> JsonObject:
        """`{"frameworks": […], "completed_frameworks": […], …}`."""
        return await self._read(OperatorCall(type="GET_FRAMEWORKS"))

    async def get_state(self) -> JsonObject:
        """`{"get_agents": …, "get_frameworks": …, "get_tasks": …, "get_executors": …}`."""
        return await self._read(OperatorCall(type="GET_STATE"))

    async def get_metrics(self) -> dict[str, float]:
        """The value of each metric by its name, such as `master/elected`."""
        timeout = DurationInfo(nanoseconds=METRICS_TIMEOUT_NS)
        answer = await self._read(
            OperatorCall(type="GET_METRICS", get_metrics=GetMetrics(timeout=timeout))
        )
        metrics = [as_object(metric) for metric in as_list(answer.get("metrics"))]
        return {str(metric.get("name")): _number(metric.get("value")) for metric in metrics}

    async def deactivate(self, agent_id: str) -> None:
        """Stop offering the agent; its tasks go on. May be repeated."""
        body = AgentCall(agent_id=ident(agent_id))
        await self._send(OperatorCall(type="DEACTIVATE_AGENT", deactivate_agent=body))

    async def reactivate(self, agent_id: str) -> None:
        """Offer the agent again.

        Raises:
            Permanent: the agent drains, or it was not deactivated.

        """
        body = AgentCall(agent_id=ident(agent_id))
        await self._send(OperatorCall(type="REACTIVATE_AGENT", reactivate_agent=body))

    async def drain(
        self, agent_id: str, grace_s: float | None = None, *, mark_gone: bool = False
    ) -> None:
        """Kill the agent's tasks, each with at most `grace_s` seconds of grace.

        `mark_gone` also declares the agent gone afterwards, which is irreversible.
        """
        period: Duration | None = None
        if grace_s is not None:
            seconds = int(grace_s)
            period = Duration(seconds=seconds, nanos=round((grace_s - seconds) * 1e9))
        body = DrainAgent(agent_id=ident(agent_id), max_grace_period=period, mark_gone=mark_gone)
        await self._send(OperatorCall(type="DRAIN_AGENT", drain_agent=body))

    async def mark_gone(self, agent_id: str) -> None:
        """Declare the agent gone, for ever.

        Raises:
            NotFound: the agent is unknown.
            Retryable: another transition of the agent is in progress.

        """
        body = AgentCall(agent_id=ident(agent_id))
        await self._send(OperatorCall(type="MARK_AGENT_GONE", mark_agent_gone=body))

    async def _send(self, call: OperatorCall) -> JsonObject:
        return await self._call(call.type or "UNKNOWN", encode_call(call))

    async def _call(self, type_: str, payload: bytes) -> JsonObject:
        master, answer = await self._ask_leader(payload)
        if answer.status in {200, 202}:
            return as_object(msgspec.json.decode(answer.body)) if answer.body else {}
        raise _error(type_, master, answer)

    async def _read(self, call: OperatorCall) -> JsonObject:
        answer = await self._send(call)
        return as_object(answer.get((call.type or "").lower()))

    async def _ask_leader(
        self,
        payload: bytes,
        open_sink: OpenSink | None = None,
        limits: aiohttp.ClientTimeout = _TIMEOUT,
    ) -> tuple[str, _Answer]:
        attempts = _Attempts()
        request = _Request(payload, open_sink, limits)
        known_first = sorted(self._masters, key=lambda master: master != self._last_leader)
        reply = await self._first_leading(known_first, request, attempts)
        if reply is None:
            redirected = [
                base for base in dict.fromkeys(attempts.locations) if base not in self._masters
            ]
            reply = await self._first_leading(redirected, request, attempts)
        if reply is None:
            self._last_leader = None
            tried = "; ".join(attempts.outcomes) or "no master was given"
            raise ClusterUnreachable(
                f"no leading master answers ({tried})",
                where=", ".join(self._masters),
                fix="Is the cluster up, and does this machine reach port 5050 of its masters? "
                "See `mesaform status`.",
            )
        self._last_leader = reply[0]
        return reply

    async def _first_leading(
        self, masters: Sequence[str], request: _Request, attempts: _Attempts
    ) -> tuple[str, _Answer] | None:
        for master in masters:
            try:
                answer = await self._post(master, request)
            except _CONNECTION_ERRORS as error:
                attempts.outcomes.append(f"{master}: {_describe(error)}")
                continue
            if answer.is_from_a_leader:
                return master, answer
            attempts.add(master, answer)
        return None

    async def _post(self, master: str, request: _Request) -> _Answer:
        url = URL(f"{master}/api/v1")
        async with self._session.post(
            url,
            data=request.payload,
            headers=_HEADERS,
            allow_redirects=False,
            timeout=request.limits,
        ) as response:
            if request.open_sink is not None and response.status == 200:
                take = request.open_sink()
                async for chunk in response.content.iter_any():
                    take(chunk)
                return _Answer(response.status, b"", "")
            return _Answer(
                response.status, await response.read(), response.headers.get("Location", "")
            )


def _error(type_: str, master: str, answer: _Answer) -> CloudError:
    what = f"{type_} was refused with {answer.status}: {answer.text or 'no reason given'}"
    if answer.status == 404:
        return NotFound(what, where=master)
    if answer.status in {409, 429} or answer.status >= 500:
        return Retryable(what, after_s=1.0, where=master)
    return Permanent(what, where=master)


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def _describe(error: Exception) -> str:
    """The cause without the client's addresses and options, such as "connection refused"."""
    number = getattr(error, "errno", None)
    return os.strerror(number).lower() if number else str(error) or type(error).__name__
