"""The door of the local AWS: one lock, the fault switch, then moto; and after what changed something, the account is saved.

moto is not made for several threads, and a saved account must be of one moment: so calls run one at a time. They take
milliseconds; bodies are read before the lock is taken.
"""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

import structlog
from werkzeug.test import run_wsgi_app

from mesaform.localcloud import calls, error_responses, pricing
from mesaform.localcloud.control import Control
from mesaform.localcloud.error_responses import Answer
from mesaform.localcloud.faults import FaultRegistry
from mesaform.localcloud.history import History
from mesaform.localcloud.protocol import PREFIX
from mesaform.localcloud.state_store import Account

log = structlog.get_logger(__name__)
LOOK_EVERY_S = 0.5
FORM = "application/x-www-form-urlencoded"
StartResponse = Callable[..., Any]


class Gateway:
    """A WSGI application. `changed` is called, under the lock, after every call that can have changed the account."""

    def __init__(
        self,
        moto_app: Any,
        account: Account,
        board: FaultRegistry,
        history: History,
        control: Control,
        lock: threading.RLock,
    ) -> None:
        self._moto = moto_app
        self._account = account
        self._board = board
        self._history = history
        self._control = control
        self._lock = lock

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        body = _read_body(environ)
        own = str(environ["PATH_INFO"]).startswith(PREFIX + "/")
        answer = self._control.answer(environ, body) if own else self._aws(environ, body)
        start_response(
            answer.status,
            [*_without_length(answer.headers), ("Content-Length", _length(environ, answer))],
        )
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [answer.body]

    def _aws(self, environ: dict[str, Any], body: bytes) -> Answer:
        """The answer; a late one is waited for without the lock, so that everybody else goes on."""
        call = calls.classify(environ, body)
        if call.service == "sqs" and call.action == "ReceiveMessage":
            return self._long_poll(environ, body)
        answer = self._at_once(call, environ, body)
        with self._lock:
            delay_s = self._board.response_delay_s(call.action, time.time())
        if delay_s:
            log.info("call.response_delayed", action=call.action, seconds=delay_s)
            time.sleep(delay_s)
        return answer

    def _long_poll(self, environ: dict[str, Any], body: bytes) -> Answer:
        """A receive that may wait: asked again and again, without the lock in between; moto would have everybody wait behind it."""
        wait_s, at_once = calls.without_wait(body)
        until = time.monotonic() + wait_s
        while True:
            with self._lock:
                answer = self._ask_moto(environ, at_once)
                if b'"Messages"' in answer.body:
                    self._account.save(only="sqs")
                    return answer
                left = until - time.monotonic()
                if left <= 0 or not answer.status.startswith("2"):
                    return answer
                self._control.wait_for_news(min(left, LOOK_EVERY_S))

    def _at_once(self, call: calls.Call, environ: dict[str, Any], body: bytes) -> Answer:
        with self._lock:
            now = time.time()
            if (
                self._board.throttles(call.action, now)
                if call.service == "ec2"
                else self._throttles_by_name(call, now)
            ):
                log.info("call.throttled", action=call.action)
                return error_responses.throttled(call.service, call.action)
            if call.service == "pricing":
                return pricing.answer(call.action, body)
            if call.action == "TerminateInstances" and self._board.ignores_termination(now):
                log.info("call.ignored", action=call.action)
                return error_responses.terminating(body)
            if (
                call.service == "ec2"
                and call.action.startswith("Describe")
                and (lag := self._board.lag_s(now))
            ):
                with self._history.as_of(now - lag):
                    return self._ask_moto(environ, body)
            answer = self._ask_moto(environ, body)
            if call.mutating:
                self._after(call, answer)
            return answer

    def _throttles_by_name(self, call: calls.Call, now: float) -> bool:
        """Other services than EC2 are throttled only where a fault names the call."""
        return self._board.names(call.action, now) and self._board.throttles(call.action, now)

    def _after(self, call: calls.Call, answer: Answer) -> None:
        self._account.save(only="s3" if call.service == "s3" else None)
        if call.service == "ec2":
            self._history.note()
            self._control.changed()
        if call.service != "s3" or not answer.status.startswith("2"):
            log.info(
                "call",
                service=call.service,
                action=call.action,
                status=answer.status[:3],
                save_ms=round(self._account.last_save_s * 1000, 1),
            )

    def _ask_moto(self, environ: dict[str, Any], body: bytes) -> Answer:
        inner = {**environ, "wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body))}
        inner.pop("HTTP_TRANSFER_ENCODING", None)
        inner.pop("wsgi.input_terminated", None)
        if inner["REQUEST_METHOD"] == "PUT" and str(inner.get("CONTENT_TYPE", "")).startswith(FORM):
            inner["CONTENT_TYPE"] = (
                "binary/octet-stream"  # curl and urllib call any upload a form; moto would read it as one
            )
        chunks, status, headers = run_wsgi_app(self._moto, inner, buffered=True)
        return Answer(status, list(headers), b"".join(chunks))


def _read_body(environ: dict[str, Any]) -> bytes:
    if environ.get("wsgi.input_terminated"):
        return bytes(environ["wsgi.input"].read())
    length = int(environ.get("CONTENT_LENGTH") or 0)
    return bytes(environ["wsgi.input"].read(length)) if length else b""


def _without_length(headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
    return [
        (name, value)
        for name, value in headers
        if name.lower() not in {"content-length", "connection", "transfer-encoding"}
    ]


def _length(environ: dict[str, Any], answer: Answer) -> str:
    """The body's length; for HEAD the one that moto states, which is the object's size."""
    if environ["REQUEST_METHOD"] == "HEAD":
        return next(
            (value for name, value in answer.headers if name.lower() == "content-length"), "0"
        )
    return str(len(answer.body))
