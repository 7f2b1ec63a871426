"""The checks of each request before its handler, and the answers to errors after it.

The order is: form of the request, Host, origin of a browser's page, credential of an operator,
size. Depends on aiohttp and structlog.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from typing import Any, cast

import structlog
from aiohttp import web
from yarl import URL

from mesaform.common.access import CHALLENGE, TOKEN_HINT
from mesaform.http.body import PORT, too_large
from mesaform.http.compression import compress_answer
from mesaform.http.connection import Connection
from mesaform.http.errors import BadRequest, default_message, method_message
from mesaform.http.hosts import AcceptedHosts, is_foreign_page
from mesaform.http.port import HttpPort
from mesaform.http.unhandled import UNHANDLED

log = structlog.get_logger("mesaform.http")

Handler = Callable[[Any], Awaitable[web.StreamResponse]]
READS = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods that change nothing."""
_HTTP_1_0, _HTTP_1_1 = (1, 0), (1, 1)
_SHOWN_PATH = 200


async def without_server_header(_request: web.Request, response: web.StreamResponse) -> None:
    """Mesos sends no `Server` header, and a version helps only an attacker."""
    response.headers.popall("Server", None)


class _Error(web.Response):
    """An answer without the `Server` header, also where the application's signals do not run."""

    async def _prepare_headers(self) -> None:
        await super()._prepare_headers()
        self.headers.popall("Server", None)


class Boundary:
    """The boundary of one port."""

    def __init__(self, port: HttpPort, hosts: AcceptedHosts) -> None:
        self._port = port
        self._hosts = hosts

    def wrap(self, handler: Handler) -> Handler:
        """The handler behind the boundary."""

        async def handle(request: web.BaseRequest) -> web.StreamResponse:
            connection = cast("Connection", request.protocol)
            connection.begin_request()
            try:
                return await self._answer(request, handler)
            finally:
                connection.end_request()

        return handle

    async def _answer(self, request: web.BaseRequest, handler: Handler) -> web.StreamResponse:
        request[PORT] = self._port
        try:
            self._check(request)
            response = await handler(request)
            await compress_answer(request, response)
            await response.prepare(request)  # an answer that cannot be written is an error, too
        except BadRequest as refused:
            return self._refused(request, refused)
        except web.HTTPException as raised:
            return self._raised(request, raised)
        except Exception as error:
            if isinstance(error, ConnectionError) and _is_disconnected(request):
                raise  # aiohttp ends the connection
            return self._unhandled(request, error)
        return response

    def error(self, status: int, message: str) -> web.Response:
        """An error in the port's format."""
        body = self._port.render_error(status, message)
        response = _Error(status=status, body=body.content)
        response.headers["Content-Type"] = body.content_type
        return response

    # --- checks

    def _check(self, request: web.BaseRequest) -> None:
        self._check_form(request)
        if self._port.checks_host:
            self._check_host(request)
        if self._port.checks_origin and request.method not in READS:
            self._check_origin(request)
        if self._port.access is not None and not self._port.access.admits(request):
            raise BadRequest(f"401 Unauthorized: {TOKEN_HINT}", 401, headers=CHALLENGE)
        if (request.content_length or 0) > self._port.limits.body_bytes:
            raise too_large(self._port.limits.body_bytes)

    def _check_form(self, request: web.BaseRequest) -> None:
        if request.version < _HTTP_1_0:
            raise BadRequest("Expecting HTTP/1.1", closes=True)
        codings = ",".join(request.headers.getall("Transfer-Encoding", ()))
        if codings.strip().lower() not in {"", "chunked"}:
            raise BadRequest("Expecting 'Transfer-Encoding' of chunked", closes=True)
        max_bytes = self._port.limits.header_bytes
        if sum(len(name) + len(value) for name, value in request.raw_headers) > max_bytes:
            raise BadRequest(f"The headers are larger than {max_bytes} bytes", 431, closes=True)

    def _check_host(self, request: web.BaseRequest) -> None:
        named = request.headers.getall("Host", [])
        if len(named) > 1 or (not named and request.version >= _HTTP_1_1):
            raise BadRequest("Expecting one 'Host' header", closes=True)
        if "://" in request.path_qs.partition("?")[0] or not request.raw_path.startswith("/"):
            named = [*named, *_authority(request.raw_path)]
        local = _local_address(request)
        for authority in named:
            if not self._hosts.accept(authority, local):
                raise BadRequest(
                    f"'{authority[:100]}' is not a name of this machine; names of its own are "
                    "set in cluster.yaml, http.host_names",
                    421,
                    closes=True,
                )

    def _check_origin(self, request: web.BaseRequest) -> None:
        headers = request.headers
        origin, site = headers.get("Origin"), headers.get("Sec-Fetch-Site")
        if is_foreign_page(origin, site, headers.get("Host", "")):
            raise BadRequest(
                f"A page of {(origin or 'another site')[:100]} may not change anything here", 403
            )

    # --- errors

    def _refused(self, request: web.BaseRequest, refused: BadRequest) -> web.StreamResponse:
        _require_unanswered(request)
        response = self.error(refused.status, refused.message)
        response.headers.update(refused.headers)
        if refused.closes:
            response.force_close()
        return response

    def _raised(self, request: web.BaseRequest, raised: web.HTTPException) -> web.StreamResponse:
        _require_unanswered(request)
        if raised.status < 400:
            redirect = _Error(status=raised.status)
            redirect.headers.update(raised.headers)
            return redirect
        response = self.error(raised.status, _message(request, raised))
        for name in ("Allow", "Location", "Retry-After", "WWW-Authenticate"):
            if name in raised.headers:
                response.headers[name] = raised.headers[name]
        return response

    def _unhandled(self, request: web.BaseRequest, error: Exception) -> web.StreamResponse:
        """Log the exception once, count it, and answer 500 with the id of the log entry."""
        error_id = self.report(error, method=request.method, path=request.path)
        _require_unanswered(request)
        return self.error(500, f"Internal error {error_id}; see the log of this server")

    def report(self, error: BaseException | None, *, method: str, path: str) -> str:
        """Log and count an exception that no code foresaw. Returns the id of the log entry."""
        error_id = secrets.token_hex(6)
        UNHANDLED.add(self._port.name)
        log.error(
            "unhandled_error",
            id=error_id,
            port=self._port.name,
            method=method[:32],
            path=path[:_SHOWN_PATH],
            exc_info=error,
        )
        return error_id


def _is_disconnected(request: web.BaseRequest) -> bool:
    return request.transport is None or request.transport.is_closing()


def _require_unanswered(request: web.BaseRequest) -> None:
    """End the connection if an answer has begun: a second one cannot be sent.

    Raises:
        ConnectionError: it has.

    """
    if request.writer.output_size > 0:
        if request.transport is not None:
            request.transport.abort()
        raise ConnectionError("an answer has begun already")


def _message(request: web.BaseRequest, raised: web.HTTPException) -> str:
    """The message of an HTTP error; aiohttp's own texts are replaced by Mesos' words."""
    if isinstance(raised, web.HTTPMethodNotAllowed):
        return method_message(request.method, frozenset(raised.allowed_methods))
    text = raised.text
    if text is None or text == f"{raised.status}: {raised.reason}":
        return default_message(raised.status)
    return text.removesuffix("\n")


def _authority(target: str) -> list[str]:
    """The authority of a request target in absolute form."""
    try:
        url = URL(target)
    except ValueError:
        return [target]
    return [url.authority] if url.absolute else []


def _local_address(request: web.BaseRequest) -> str:
    name = request.transport.get_extra_info("sockname") if request.transport is not None else None
    return str(name[0]) if isinstance(name, tuple) else ""
