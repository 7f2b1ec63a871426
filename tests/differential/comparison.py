"""Runs a case on both engines, and compares the answers without what always differs."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

import aiohttp

from tests.differential.cases import AGENT, FRAMEWORK, OFFER, TASK, Case
from tests.differential.client import Document, Event, Gone, Outcome, Scheduler
from tests.differential.engines import End, Engine, EngineEnded
from tests.support.struct_strategies import as_json

Summary = dict[str, Any]
ENDING_S = 5.0
"""How long a process takes at most to end after it has closed its connections."""


@dataclass(frozen=True, slots=True)
class Answers:
    """What the engines answered to one case."""

    case: Case
    mesos: Summary
    embedded: Summary

    @property
    def differ(self) -> bool:
        return self.mesos != self.embedded


class Pair:
    """Both engines, each with a framework of its own.

    Args:
        mesos: the reference, which is started again when a case ends a process of it.
        embedded: the engine under test.

    """

    def __init__(self, mesos: Engine, embedded: Engine, session: aiohttp.ClientSession) -> None:
        self.mesos, self._embedded, self._session = mesos, embedded, session
        self._number = 0
        self._last = "none"
        self._schedulers: tuple[Scheduler, Scheduler]

    async def start(self) -> None:
        """Subscribe at both engines."""
        engines = (self.mesos, self._embedded)
        first, second = (Scheduler(engine.base, self._session) for engine in engines)
        self._schedulers = (first, second)
        await asyncio.gather(*(scheduler.subscribe() for scheduler in self._schedulers))

    async def stop(self) -> None:
        """End both frameworks."""
        await asyncio.gather(*(scheduler.close() for scheduler in self._schedulers))

    async def compare(self, case: Case) -> Answers:
        """The answers of both engines to a case.

        A case that ends a process of Apache Mesos has the answer `ends the reference`.

        Raises:
            EngineEnded: a process of the embedded engine ended.

        """
        self._number += 1
        task_id = f"task-{self._number}"
        name = f"{case.name}, the case before: {self._last}"
        self._last = case.name
        of_embedded = asyncio.create_task(
            _unless_ended(self._embedded, _run(self._schedulers[1], case, task_id))
        )
        try:
            mesos = await _unless_ended(self.mesos, _run(self._schedulers[0], case, task_id))
            if isinstance(mesos, End):
                await self._start_reference_again()
            embedded = await of_embedded
        finally:
            of_embedded.cancel()
        if isinstance(embedded, End):
            raise EngineEnded(f"{self._embedded.name}: during {name}: {embedded}")
        if isinstance(mesos, End):
            mesos = _as_summary(mesos, name)
        return Answers(case, mesos, embedded)

    async def _start_reference_again(self) -> None:
        self._schedulers[0].forget()
        await self.mesos.restart()
        reference = Scheduler(self.mesos.base, self._session)
        await reference.subscribe()
        self._schedulers = (reference, self._schedulers[1])


def _as_summary(end: End, name: str) -> Summary:
    return {"ends the reference": end.part, "status": end.status, "during": name, "log": end.log}


async def _unless_ended(engine: Engine, call: Coroutine[Any, Any, Summary]) -> Summary | End:
    """The summary of a call, or the end of a process of the engine in the meantime."""
    answer = asyncio.create_task(call)
    end = asyncio.create_task(engine.until_end())
    try:
        await asyncio.wait([answer, end], return_when=asyncio.FIRST_COMPLETED)
        if answer.done() and not engine.has_ended:
            with contextlib.suppress(aiohttp.ClientError):
                return answer.result()
        return await asyncio.wait_for(end, ENDING_S)
    except TimeoutError:
        return answer.result()
    finally:
        for task in (answer, end):
            task.cancel()
        await asyncio.gather(answer, end, return_exceptions=True)


async def _run(scheduler: Scheduler, case: Case, task_id: str) -> Summary:
    try:
        outcome = await _outcome(scheduler, case, task_id)
    except (TimeoutError, Gone) as error:
        outcome = Outcome(0, type(error).__name__)
        await scheduler.close()
        await scheduler.subscribe()
    return summary(outcome, scheduler, task_id)


async def _outcome(scheduler: Scheduler, case: Case, task_id: str) -> Outcome:
    if case.kind == "operator":
        return await scheduler.operate(_filled(case.document, scheduler, task_id))
    if case.kind == "executor":
        return await scheduler.execute(_filled(case.document, scheduler, task_id))
    if case.kind == "subscribe":
        return await scheduler.subscribe_as(_subscription(case.document))
    await scheduler.offer()
    document = case.document
    if case.kind in {"task", "accept"}:
        launch = {"type": "LAUNCH", "launch": {"task_infos": [document]}}
        document = {
            "type": "ACCEPT",
            "framework_id": {"value": FRAMEWORK},
            "accept": {
                "offer_ids": [{"value": OFFER}],
                "operations": [launch] if case.kind == "task" else document,
                "filters": {"refuse_seconds": 0},
            },
        }
    offer = scheduler.offers[0]
    body = _filled(document, scheduler, task_id)
    outcome = await scheduler.exchange(body)
    is_used = outcome.status == 202 and offer["id"]["value"].encode() in body
    if is_used and offer in scheduler.offers:
        scheduler.offers.remove(offer)
    return await _settled(scheduler, outcome)


def _subscription(info: Document) -> bytes:
    document: Document = {"type": "SUBSCRIBE", "subscribe": {"framework_info": info}}
    if isinstance(info, dict) and isinstance(info.get("id"), dict):
        document["framework_id"] = info["id"]
    return as_json(document)


def _filled(document: Document, scheduler: Scheduler, task_id: str) -> bytes:
    """The document with the engine's own ids."""
    offer = scheduler.offers[0]["id"]["value"] if scheduler.offers else "none"
    body = as_json(document)
    for name, value in (
        (OFFER, offer),
        (AGENT, scheduler.agent_id),
        (FRAMEWORK, scheduler.id),
        (TASK, task_id),
    ):
        body = body.replace(name.encode(), value.encode())
    return body


async def _settled(scheduler: Scheduler, outcome: Outcome) -> Outcome:
    """The outcome with the first status of each launched task. Ends the tasks and gets offers."""
    body = await scheduler.read("GET_TASKS")
    launched = [
        task["task_id"]["value"]
        for task in body.get("tasks", [])
        if task["framework_id"]["value"] == scheduler.id
    ]
    for launched_id in launched:
        event = next(
            (event for event in outcome.events if _is_agent_status(event, launched_id)), None
        )
        if event is None:
            event = await scheduler.first_status(launched_id)
            outcome.events.append(event)
        await scheduler.end_task(launched_id, event["update"]["status"])
    if outcome.status == 202 or any(event["type"] == "ERROR" for event in outcome.events):
        await _renew(scheduler)
    return outcome


def _is_agent_status(event: Event, task_id: str) -> bool:
    if event["type"] != "UPDATE":
        return False
    status = event["update"]["status"]
    return bool(status["task_id"]["value"] == task_id and status["source"] != "SOURCE_MASTER")


async def _renew(scheduler: Scheduler) -> None:
    """Wait for offers again; a call may have declined, used or suppressed them."""
    alive = await scheduler.send({"type": "REVIVE", "framework_id": {"value": scheduler.id}})
    if alive.status != 202:
        await scheduler.close()
        await scheduler.subscribe()
        return
    await scheduler.offer()


# --- summaries

_LAUNCHED = {"TASK_STAGING", "TASK_STARTING", "TASK_RUNNING", "TASK_FINISHED", "TASK_FAILED"}


def summary(outcome: Outcome, scheduler: Scheduler, task_id: str) -> Summary:
    """The parts of an outcome that must agree."""
    ids = {
        scheduler.id: "FRAMEWORK",
        scheduler.agent_id: "AGENT",
        task_id: "TASK",
        scheduler.stream_id: "STREAM",
    }
    text = _plain(outcome.text, ids) if outcome.status >= 400 or outcome.status == 0 else ""
    events = [_event(event, ids) for event in outcome.events if event["type"] not in _UNORDERED]
    return {"status": outcome.status, "text": text, "events": events}


_CAUSES = re.compile(r"of the task is not specified|No such file or directory|Permission denied")
"""Why a program was not executed, in the words of both engines."""

# Apache Mesos asks agents about operations, so their statuses come at any time.
_UNORDERED = {"OFFERS", "RESCIND", "UPDATE_OPERATION_STATUS"}


def _event(event: Event, ids: dict[str, str]) -> Document:
    if event["type"] == "UPDATE":
        status = event["update"]["status"]
        shown = {
            "state": status["state"],
            "source": status.get("source"),
            "reason": status.get("reason"),
            "task": _plain(status["task_id"]["value"], ids),
        }
        if status.get("source") == "SOURCE_MASTER":
            return {"UPDATE": {**shown, "message": _plain(status.get("message", ""), ids)}}
        cause = _CAUSES.search(status.get("message", ""))
        known = {"cause": cause[0]} if cause is not None else {}
        return {"UPDATE": {"state": _agent_state(status["state"]), "task": shown["task"], **known}}
    if event["type"] == "ERROR":
        return {"ERROR": _plain(event["error"]["message"], ids)}
    if event["type"] == "SUBSCRIBED":
        info = {name: value for name, value in event["info"].items() if name != "id"}
        return {"SUBSCRIBED": info}
    return {event["type"]: None}


def _agent_state(state: str) -> str:
    """The first status of a task that started: an engine may report it late."""
    return "started" if state in {"TASK_STARTING", "TASK_RUNNING"} else state


_RULES = (
    (re.compile(r"(Missing required fields: )(.*)", re.DOTALL), "_sorted"),
    (re.compile(r"syntax error at line \d+ near: .*", re.DOTALL), "syntax error"),
    (re.compile(r"Resource '.*' is invalid", re.DOTALL), "Resource R is invalid"),
    (re.compile(r"Total resources .* is more than available .*", re.DOTALL), "Total resources"),
    (re.compile(r"[Oo]ffer [0-9a-f-]{36}-O\d+"), "offer OFFER"),
    (re.compile(r"(as a JSON (?:number|boolean) for field '\w+'): .*", re.DOTALL), r"\1"),
)


def _plain(text: str, ids: dict[str, str]) -> str:
    """A text without ids and without details that depend on the JSON library."""
    for value, name in ids.items():
        if value:
            text = text.replace(value, name)
    for pattern, replacement in _RULES:
        if replacement == "_sorted":
            match = pattern.search(text)
            if match is not None:
                fields = ", ".join(sorted(match[2].split(", ")))
                text = text[: match.start()] + match[1] + fields
        else:
            text = pattern.sub(replacement, text)
    return text
