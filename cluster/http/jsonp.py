"""JSON answers, and JSONP where a port allows it.

With JSONP any page that a reader of this port opens can read the answer, so it is off by default.
"""

from __future__ import annotations

import re

from aiohttp import web

from mesaform.http.body import PORT
from mesaform.http.errors import BadRequest

_CALLBACK = re.compile(r"[A-Za-z_$][A-Za-z0-9_$.\[\]]{0,100}", re.ASCII)


def json_or_script(request: web.Request, text: bytes) -> web.Response:
    """The JSON text, or a call of the function that `?jsonp=` names.

    Raises:
        BadRequest: 403 where JSONP is off, 400 for what is not a function's name.

    """
    callback = request.query.get("jsonp")
    if callback is None:
        return web.Response(body=text, content_type="application/json")
    port = request.get(PORT)
    if port is None or not port.allows_jsonp:
        raise BadRequest("JSONP is off; `http.jsonp` in cluster.yaml turns it on", 403)
    if not _CALLBACK.fullmatch(callback):
        raise BadRequest("'jsonp' must name a JavaScript function")
    return web.Response(
        body=b"%s(%s)" % (callback.encode(), text),
        content_type="text/javascript",
        headers={"X-Content-Type-Options": "nosniff"},
    )
