"""The GET endpoints from before the v1 API, with `?jsonp=`."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import msgspec
from aiohttp import web

from mesaform.engine.master import render_legacy as render
from mesaform.engine.master.http_common import JSON, empty, text
from mesaform.engine.master.state import State

TASKS_LIMIT = 100
_CALLBACK = re.compile(r"[A-Za-z_$][A-Za-z0-9_$.\[\]]{0,100}")

Process = Callable[[], Any]


def answer(request: web.Request, body: Any) -> web.Response:
    """JSON, or a call of the function named by `?jsonp=`."""
    data = msgspec.json.encode(body)
    callback = request.query.get("jsonp")
    if callback is None:
        return web.Response(body=data, content_type=JSON)
    if not _CALLBACK.fullmatch(callback):
        return text(400, "'jsonp' must name a JavaScript function")
    return web.Response(body=b"%s(%s)" % (callback.encode(), data), content_type="text/javascript")


def _tasks(request: web.Request, state: State) -> Any:
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


_READS: dict[str, Callable[[web.Request, State], Any]] = {
    "slaves": lambda _request, m: render.slaves_json(m),
    "frameworks": lambda _request, m: render.frameworks_json(m),
    "tasks": _tasks,
    "roles": lambda _request, m: render.roles_json(m),
    "maintenance/schedule": lambda _request, _m: {},
    "maintenance/status": lambda _request, _m: {},
    "quota": lambda _request, _m: {},
    "weights": lambda _request, _m: [],
}
PATHS = frozenset({*_READS, "state", "state-summary"})
"""What only a leading master answers."""


def legacy(request: web.Request, path: str, state: State, process: dict[str, Any]) -> web.Response:
    """One read on a leading master. `process` is what /state tells beside the core: version, pid, flags, leader."""
    if path == "state":
        return answer(request, process | render.state_json(state))
    if path == "state-summary":
        return answer(request, render.summary_json(state, process["hostname"]))
    body = _READS[path](request, state)
    return (
        text(400, "'limit' and 'offset' must be numbers from 0")
        if body is None
        else answer(request, body)
    )


def health(_request: web.Request) -> web.Response:
    return empty(200)
