"""The v1 operator API of whichever of the given masters leads.

An operator's machine may reach the masters only by the addresses it was given (a public address, a tunnel), so redirects
are not followed while one of those addresses leads; the `Location` of a redirect is the last thing tried.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import msgspec
from yarl import URL

from mesaform.common.errors import CloudError, ClusterUnreachable, NotFound, Permanent, Retryable

CONNECT_TIMEOUT_S = 2.0
CALL_TIMEOUT_S = 15.0
PIECE_BYTES = 1 << 16
Begin = Callable[[], Callable[[bytes], None]]
_TIMEOUT = aiohttp.ClientTimeout(
    total=CALL_TIMEOUT_S, connect=CONNECT_TIMEOUT_S, sock_connect=CONNECT_TIMEOUT_S
)
_HEADERS = {"Accept": "application/json", "Content-Type": "application/json"}
_BROKEN = (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, asyncio.TimeoutError, OSError)


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
        """A standby answers 307; a master that knows no leader, or is still recovering as one, answers 503 and says so."""
        if self.status == 503:
            return bool(self.text) and not any(
                word in self.text.lower() for word in ("leader", "recover")
            )
        return self.status not in {301, 302, 307, 308}


@dataclass(slots=True)
class _Attempts:
    """What was asked and what came of it, for the error's text; `locations` are redirect targets not among the given masters."""

    made: list[str] = field(default_factory=list)
    locations: list[str] = field(default_factory=list)

    def note(self, master: str, answer: _Answer) -> None:
        if answer.location:
            # Mesos redirects to `//host:port/path`; joining with the asked URL supplies the scheme.
            target = URL(master).join(URL(answer.location, encoded=True))
            base = f"{target.scheme}://{target.host}:{target.port}"
            self.locations.append(base)
            self.made.append(f"{master} stands by and points to {base}")
        else:
            self.made.append(
                f"{master} answered {answer.status}: {answer.text or 'no reason given'}"
            )


class OperatorClient:
    """Calls the leader among `masters` (base URLs such as `http://10.0.0.10:5050`).

    The session is the caller's to close. Calls may run side by side. A call whose connection broke before the answer came
    may have been carried out: all of the operator calls used here may be repeated.
    """

    def __init__(self, masters: Sequence[str], session: aiohttp.ClientSession) -> None:
        self._masters = [master.rstrip("/") for master in masters]
        self._session = session
        self._last_leader: str | None = None

    async def call(self, type_: str, **body: Any) -> dict[str, Any]:
        """The leader's whole answer (`{"type": "GET_AGENTS", "get_agents": {…}}`), or `{}` where it has no body.

        Raises ClusterUnreachable when no master leads, NotFound for 404, Retryable for 409, 429 and 5xx, Permanent for the rest;
        each carries the server's own message.
        """
        master, answer = await self._ask_leader({"type": type_, **body})
        if answer.status in {200, 202}:
            decoded = msgspec.json.decode(answer.body) if answer.body else {}
            return decoded if isinstance(decoded, dict) else {}
        raise _error(type_, master, answer)

    async def stream(self, type_: str, begin: Begin) -> None:
        """The leader's whole answer to a call without a body, piece by piece: for answers too large to hold.

        `begin` is called for each attempt and gives what takes the pieces. Raises as `call` does, and whatever taking a piece raises.
        """
        master, answer = await self._ask_leader({"type": type_}, begin)
        if answer.status != 200:
            raise _error(type_, master, answer)

    async def leader(self) -> str:
        """The base URL that the leader answers on; ClusterUnreachable when there is none."""
        master, _ = await self._ask_leader({"type": "GET_HEALTH"})
        return master

    async def get_agents(self) -> dict[str, Any]:
        """`{"agents": [{"agent_info": …, "active": …, …}], "recovered_agents": […]}`."""
        return await self._read("GET_AGENTS")

    async def get_tasks(self) -> dict[str, Any]:
        """`{"tasks": […], "completed_tasks": […], "unreachable_tasks": […], …}`."""
        return await self._read("GET_TASKS")

    async def get_frameworks(self) -> dict[str, Any]:
        """`{"frameworks": […], "completed_frameworks": […], …}`."""
        return await self._read("GET_FRAMEWORKS")

    async def get_state(self) -> dict[str, Any]:
        """`{"get_agents": …, "get_frameworks": …, "get_tasks": …, "get_executors": …}`."""
        return await self._read("GET_STATE")

    async def get_metrics(self) -> dict[str, float]:
        """Every metric's value by name, such as `master/elected`."""
        answer = await self._read(
            "GET_METRICS", get_metrics={"timeout": {"nanoseconds": 5_000_000_000}}
        )
        return {metric["name"]: metric.get("value", 0.0) for metric in answer.get("metrics", [])}

    async def deactivate(self, agent_id: str) -> None:
        """No more offers of this agent; its tasks go on. May be repeated."""
        await self.call("DEACTIVATE_AGENT", deactivate_agent={"agent_id": {"value": agent_id}})

    async def reactivate(self, agent_id: str) -> None:
        """Offers again. Permanent while the agent is draining or when it was not deactivated."""
        await self.call("REACTIVATE_AGENT", reactivate_agent={"agent_id": {"value": agent_id}})

    async def drain(
        self, agent_id: str, grace_s: float | None = None, *, mark_gone: bool = False
    ) -> None:
        """Kill the agent's tasks with at most `grace_s` seconds of grace each; `mark_gone` is irreversible."""
        body: dict[str, Any] = {"agent_id": {"value": agent_id}}
        if grace_s is not None:
            seconds = int(grace_s)
            body["max_grace_period"] = {
                "seconds": seconds,
                "nanos": round((grace_s - seconds) * 1e9),
            }
        if mark_gone:
            body["mark_gone"] = True
        await self.call("DRAIN_AGENT", drain_agent=body)

    async def mark_gone(self, agent_id: str) -> None:
        """Declare the agent gone for ever. NotFound when it is unknown; Retryable while another transition runs."""
        await self.call("MARK_AGENT_GONE", mark_agent_gone={"agent_id": {"value": agent_id}})

    async def _read(self, type_: str, **body: Any) -> dict[str, Any]:
        answer = await self.call(type_, **body)
        inner = answer.get(type_.lower(), {})
        return inner if isinstance(inner, dict) else {}

    async def _ask_leader(
        self, call: dict[str, Any], begin: Begin | None = None
    ) -> tuple[str, _Answer]:
        attempts = _Attempts()
        payload = msgspec.json.encode(call)
        known_first = sorted(self._masters, key=lambda master: master != self._last_leader)
        found = await self._first_leading(known_first, payload, attempts, begin)
        if found is None:
            elsewhere = [
                base for base in dict.fromkeys(attempts.locations) if base not in self._masters
            ]
            found = await self._first_leading(elsewhere, payload, attempts, begin)
        if found is None:
            self._last_leader = None
            tried = "; ".join(attempts.made) or "no master was given"
            raise ClusterUnreachable(
                f"no leading master answers ({tried})",
                where=", ".join(self._masters),
                fix="Is the cluster up, and does this machine reach port 5050 of its masters? See `mesaform status`.",
            )
        self._last_leader = found[0]
        return found

    async def _first_leading(
        self, masters: Sequence[str], payload: bytes, attempts: _Attempts, begin: Begin | None
    ) -> tuple[str, _Answer] | None:
        for master in masters:
            try:
                answer = await self._post(master, payload, begin)
            except _BROKEN as error:
                attempts.made.append(f"{master}: {_in_words(error)}")
                continue
            if answer.is_from_a_leader:
                return master, answer
            attempts.note(master, answer)
        return None

    async def _post(self, master: str, payload: bytes, begin: Begin | None) -> _Answer:
        url = URL(f"{master}/api/v1")
        async with self._session.post(
            url, data=payload, headers=_HEADERS, allow_redirects=False, timeout=_TIMEOUT
        ) as response:
            if begin is not None and response.status == 200:
                take = begin()
                async for piece in response.content.iter_chunked(PIECE_BYTES):
                    take(piece)
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


def _in_words(error: Exception) -> str:
    """What broke, without the client's addresses and options: "connection refused"."""
    number = getattr(error, "errno", None)
    return os.strerror(number).lower() if number else str(error) or type(error).__name__
