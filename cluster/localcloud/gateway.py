"""HTTP entry point of the AWS emulation: serialises calls, injects faults, delegates to moto.

moto is not made for several threads, and a saved account must be of one moment, so calls run one at
a time. A call takes milliseconds; its body is read before the lock is taken. After a call that may
have changed something the account is saved before the response is sent.
"""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Iterable
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

import structlog
from werkzeug.test import run_wsgi_app

from mesaform.localcloud import calls, error_responses, pricing
from mesaform.localcloud.control import Control
from mesaform.localcloud.error_responses import Answer
from mesaform.localcloud.faults import FaultRegistry
from mesaform.localcloud.history import History
from mesaform.localcloud.protocol import PREFIX
from mesaform.localcloud.state_store import AccountStore

log = structlog.get_logger(__name__)
RECEIVE_INTERVAL_S = 0.5
"""How often a waiting ReceiveMessage looks for messages when nothing else wakes it."""
FORM_TYPE = "application/x-www-form-urlencoded"
_HOP_HEADERS = frozenset({"content-length", "connection", "transfer-encoding"})


class Gateway:
    """A WSGI application: the local cloud's own routes, and AWS for everything else."""

    def __init__(
        self,
        moto_app: WSGIApplication,
        account: AccountStore,
        faults: FaultRegistry,
        history: History,
        control: Control,
        lock: threading.RLock,
    ) -> None:
        self._moto = moto_app
        self._account = account
        self._faults = faults
        self._history = history
        self._control = control
        self._lock = lock

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        body = _read_body(environ)
        is_own = str(environ["PATH_INFO"]).startswith(PREFIX + "/")
        answer = self._control.answer(environ, body) if is_own else self._aws(environ, body)
        headers = [
            (name, value) for name, value in answer.headers if name.lower() not in _HOP_HEADERS
        ]
        start_response(answer.status, [*headers, ("Content-Length", _length(environ, answer))])
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [answer.body]

    def _aws(self, environ: WSGIEnvironment, body: bytes) -> Answer:
        """The answer to an AWS call. A delayed one waits without the lock."""
        call = calls.classify(environ, body)
        if call.service == "sqs" and call.action == "ReceiveMessage":
            return self._receive(environ, body)
        answer = self._execute(call, environ, body)
        with self._lock:
            delay_s = self._faults.response_delay_s(call.action, time.time())
        if delay_s:
            log.info("call.response_delayed", action=call.action, seconds=delay_s)
            time.sleep(delay_s)
        return answer

    def _receive(self, environ: WSGIEnvironment, body: bytes) -> Answer:
        """ReceiveMessage: moto would wait with the lock held, so it is asked again and again."""
        wait_s, request = calls.without_wait(body)
        until = time.monotonic() + wait_s
        while True:
            with self._lock:
                answer = self._ask_moto(environ, request)
                if b'"Messages"' in answer.body:
                    self._account.save()
                    return answer
                self._account.forget_reads()
                remaining_s = until - time.monotonic()
                if remaining_s <= 0 or not answer.status.startswith("2"):
                    return answer
                self._control.wait_for_change(min(remaining_s, RECEIVE_INTERVAL_S))

    def _execute(self, call: calls.Call, environ: WSGIEnvironment, body: bytes) -> Answer:
        with self._lock:
            now = time.time()
            if (answer := self._answer_by_fault(call, body, now)) is not None:
                return answer
            if call.service == "pricing":
                return pricing.answer(call.action, body)
            if call.mutating:
                answer = self._ask_moto(environ, body)
                self._after_change(call, answer)
                return answer
            return self._read(call, environ, body, now)

    def _answer_by_fault(self, call: calls.Call, body: bytes, now: float) -> Answer | None:
        """The answer of a fault that keeps the call from moto; None if there is none."""
        if self._is_throttled(call, now):
            log.info("call.throttled", action=call.action)
            return error_responses.throttled(call.service, call.action)
        if call.action == "TerminateInstances" and self._faults.ignores_termination(now):
            log.info("call.ignored", action=call.action)
            return error_responses.terminating(body)
        return None

    def _is_throttled(self, call: calls.Call, now: float) -> bool:
        """Other services than EC2 are throttled only where a fault names the call."""
        if call.service != "ec2" and not self._faults.names(call.action, now):
            return False
        return self._faults.throttles(call.action, now)

    def _read(self, call: calls.Call, environ: WSGIEnvironment, body: bytes, now: float) -> Answer:
        """The answer to a call that changes nothing, from an old state while EC2 lags."""
        is_describe = call.service == "ec2" and call.action.startswith("Describe")
        lag_s = self._faults.lag_s(now) if is_describe else 0.0
        try:
            if not lag_s:
                return self._ask_moto(environ, body)
            with self._history.as_of(now - lag_s):
                return self._ask_moto(environ, body)
        finally:
            self._account.forget_reads()

    def _after_change(self, call: calls.Call, answer: Answer) -> None:
        self._account.save()
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

    def _ask_moto(self, environ: WSGIEnvironment, body: bytes) -> Answer:
        request = {**environ, "wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body))}
        request.pop("HTTP_TRANSFER_ENCODING", None)
        request.pop("wsgi.input_terminated", None)
        content_type = str(request.get("CONTENT_TYPE", ""))
        if request["REQUEST_METHOD"] == "PUT" and content_type.startswith(FORM_TYPE):
            # curl and urllib give every upload this type; moto would read it as a form.
            request["CONTENT_TYPE"] = "binary/octet-stream"
        chunks, status, headers = run_wsgi_app(self._moto, request, buffered=True)
        return Answer(status, list(headers), b"".join(chunks))


def _read_body(environ: WSGIEnvironment) -> bytes:
    if environ.get("wsgi.input_terminated"):
        return bytes(environ["wsgi.input"].read())
    length = int(environ.get("CONTENT_LENGTH") or 0)
    return bytes(environ["wsgi.input"].read(length)) if length else b""


def _length(environ: WSGIEnvironment, answer: Answer) -> str:
    """The body's length; for HEAD the one that moto states, which is the object's size."""
    if environ["REQUEST_METHOD"] == "HEAD":
        return next(
            (value for name, value in answer.headers if name.lower() == "content-length"), "0"
        )
    return str(len(answer.body))
