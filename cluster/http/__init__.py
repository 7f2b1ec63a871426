"""The one HTTP server of every port: limits, time-outs, Host and Origin checks, error bodies.

`server.HttpServer` serves an aiohttp application behind the boundary. `port.HttpPort` says what
differs from port to port. Handlers read a request only with `body` and `query`. Depends on aiohttp,
msgspec, structlog and `mesaform.common`.
"""

from mesaform.http.access import Access, AccessFile, PortAccess, paths
from mesaform.http.body import decode_json, read_body, read_json
from mesaform.http.client import open_session
from mesaform.http.errors import BadRequest, ErrorBody, json_message, plain_text
from mesaform.http.hosts import AcceptedHosts
from mesaform.http.jsonp import json_or_script
from mesaform.http.port import HttpPort, Limits, Standbys
from mesaform.http.query import integer
from mesaform.http.server import HttpServer
from mesaform.http.settings import HttpSettings, http_settings
from mesaform.http.standby import callers, is_passed_on, pass_on
from mesaform.http.stream import mark_stream
from mesaform.http.unhandled import UNHANDLED, Unhandled

__all__ = [
    "UNHANDLED",
    "AcceptedHosts",
    "Access",
    "AccessFile",
    "BadRequest",
    "ErrorBody",
    "HttpPort",
    "HttpServer",
    "HttpSettings",
    "Limits",
    "PortAccess",
    "Standbys",
    "Unhandled",
    "callers",
    "decode_json",
    "http_settings",
    "integer",
    "is_passed_on",
    "json_message",
    "json_or_script",
    "mark_stream",
    "open_session",
    "pass_on",
    "paths",
    "plain_text",
    "read_body",
    "read_json",
]
