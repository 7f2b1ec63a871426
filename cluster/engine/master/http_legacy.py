"""The GET endpoints from before the v1 API, with `?jsonp=`."""

from __future__ import annotations

import re
from collections.abc import Callable

import msgspec
from aiohttp import web

from mesaform.engine.documents import Document
from mesaform.engine.master import render_legacy as render
from mesaform.engine.master.http_common import JSON, empty, text
from mesaform.engine.master.state import State

TASKS_LIMIT = 100  # Mesos' default of `?limit=`
_CALLBACK = re.compile(r"[A-Za-z_$][A-Za-z0-9_$.\[\]]{0,100}")


def answer(request: web.Request, body: object) -> web.Response:
    """JSON, or a call of the function that `?jsonp=` names."""
    data = msgspec.json.encode(body)
    callback = request.query.get("jsonp")
    if callback is None:
        return web.Response(body=data, content_type=JSON)
    if not _CALLBACK.fullmatch(callback):
        return text(400, "'jsonp' must name a JavaScript function")
    return web.Response(body=b"%s(%s)" % (callback.encode(), data), content_type="text/javascript")


def _tasks(request: web.Request, state: State) -> Document | None:
    try:
        limit = int(request.query.get("limit", TASKS_LIMIT))
        offset = int(request.query.get("offset", 0))
    except ValueError:
        return None
    if limit < 0 or offset < 0:
        return None
    return render.tasks_json(
        state, limit=limit, offset=offset, ascending=request.query.get("order") == "asc"
    )


_READS: dict[str, Callable[[web.Request, State], object | None]] = {
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
    body = _READS[path](request, state)
    if body is None:
        return text(400, "'limit' and 'offset' must be numbers from 0")
    return answer(request, body)


def health(_request: web.Request) -> web.Response:
    """/health."""
    return empty(200)
