"""Runs a case on both engines, and compares the answers without what always differs."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from typing import Any

import aiohttp

from tests.differential.cases import AGENT, FRAMEWORK, OFFER, TASK, Case
from tests.differential.client import Document, Event, Gone, Outcome, Scheduler
from tests.support.struct_strategies import as_json

Summary = dict[str, Any]


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
        mesos: the URL of the Apache Mesos.
        embedded: the URL of the embedded engine.

    """

    def __init__(self, mesos: str, embedded: str, session: aiohttp.ClientSession) -> None:
        self._schedulers = (Scheduler(mesos, session), Scheduler(embedded, session))
        self._number = 0

    async def start(self) -> None:
        await asyncio.gather(*(scheduler.subscribe() for scheduler in self._schedulers))

    async def stop(self) -> None:
        await asyncio.gather(*(scheduler.close() for scheduler in self._schedulers))

    async def compare(self, case: Case) -> Answers:
        """The answers of both engines to a case."""
        self._number += 1
        task_id = f"task-{self._number}"
        mesos, embedded = await asyncio.gather(
            *(_run(scheduler, case, task_id) for scheduler in self._schedulers)
        )
        return Answers(case, mesos, embedded)


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
