"""The GET endpoints from before the v1 API."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from aiohttp import web

from mesaform.engine.documents import Document
from mesaform.engine.master import render_legacy as render
from mesaform.engine.master.http_common import empty
from mesaform.engine.master.state import State
from mesaform.http import integer, json_or_script

TASKS_LIMIT = 100  # Mesos' default of `?limit=`


def answer(request: web.Request, body: object) -> web.Response:
    """The answer to a read, in JSON."""
    return json_or_script(request, msgspec.json.encode(body))


def _tasks(request: web.Request, state: State) -> Document:
    return render.tasks_json(
        state,
        limit=integer(request, "limit", TASKS_LIMIT, minimum=0),
        offset=integer(request, "offset", 0, minimum=0),
        ascending=request.query.get("order") == "asc",
    )


_READS: dict[str, Callable[[web.Request, State], object]] = {
    "slaves": lambda _request, state: render.slaves_json(state),
    "frameworks": lambda _request, state: render.frameworks_json(state),
    "tasks": _tasks,
    "roles": lambda _request, state: render.roles_json(state),
    "maintenance/schedule": lambda _request, _state: {},
    "maintenance/status": lambda _request, _state: {},
    "quota": lambda _request, _state: {},
    "weights": lambda _request, _state: [],
}
PATHS = frozenset({*_READS, "state", "state-summary"})
"""The paths that only a leading master answers."""


def answer_read(request: web.Request, path: str, state: State, process: Document) -> web.Response:
    """Answer a read on a leading master.

    `process` has the facts of /state that the core does not know: version, pid, flags, leader.
    """
    if path == "state":
        return answer(request, process | render.state_json(state))
    if path == "state-summary":
        return answer(request, render.summary_json(state, str(process["hostname"])))
    return answer(request, _READS[path](request, state))


def health(_request: web.Request) -> web.Response:
    """/health."""
    return empty(200)
