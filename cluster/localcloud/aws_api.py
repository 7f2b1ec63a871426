"""Executes AWS calls: signatures, injected faults, moto, and the account's record after changes.

moto is not made for several threads, and a saved account must be of one moment: one thread makes
all calls, one at a time. A call takes milliseconds. A call that fails in an unforeseen way, or that
cannot be stored, changes nothing: the services that it used are put back to their last record.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import structlog

from mesaform.localcloud import diagnosis, error_responses, pricing, service_quotas
from mesaform.localcloud.access_keys import AccessKeys
from mesaform.localcloud.aws_request import AwsRequest
from mesaform.localcloud.calls import Call
from mesaform.localcloud.denied_calls import action_of
from mesaform.localcloud.error_responses import Answer, ErrorForm
from mesaform.localcloud.faults import FaultRegistry
from mesaform.localcloud.history import History
from mesaform.localcloud.moto_app import SERVICES, MotoApp
from mesaform.localcloud.required_parameters import missing_parameters
from mesaform.localcloud.signatures import Signature, is_valid
from mesaform.localcloud.state_store import AccountStore, NotStoredError

log = structlog.get_logger(__name__)
PRICING = "pricing"
QUOTAS = "servicequotas"
MESSAGE_MARKS = (b'"Messages"', b"<Message>")
"""What an answer of ReceiveMessage with messages contains, in JSON or XML."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What the execution of calls is made of.

    Attributes:
        changed: is called after each call that may have changed EC2.
        count_error: is called with each unforeseen exception.

    """

    moto: MotoApp
    account: AccountStore
    faults: FaultRegistry
    history: History
    keys: AccessKeys
    changed: Callable[[], None]
    count_error: Callable[[], None]


class AwsApi:
    """AWS of this account. All methods are called in one thread."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def refuse_caller(self, signature: Signature | None, form: ErrorForm) -> Answer | None:
        """The answer to a caller without a valid key; None for one whose signature is to check."""
        if signature is None:
            return error_responses.unsigned(form)
        key = self._parts.keys.find(signature.key_id)
        if key is None or not key.admits(signature.token):
            return error_responses.unknown_key(form)
        now = time.time()
        if key.expires_at <= now:
            return error_responses.expired_session(form)
        if signature.has_expired(now):
            return error_responses.expired(form)
        return None

    def refuse_request(
        self, request: AwsRequest, signature: Signature | None, form: ErrorForm
    ) -> Answer | None:
        """The answer to a request that the holder of its key did not sign; None if he did."""
        if (answer := self.refuse_caller(signature, form)) is not None or signature is None:
            return answer
        key = self._parts.keys.find(signature.key_id)
        if key is None or not is_valid(request, signature, key.secret):
            return error_responses.wrong_signature(form)
        return None

    def execute(
        self, call: Call, request: AwsRequest, signature: Signature | None
    ) -> tuple[Answer, float]:
        """The answer to a call, and for how many seconds a fault delays it."""
        form = error_responses.form_of(call.service, request)
        if (answer := self.refuse_request(request, signature, form)) is not None:
            return answer, 0.0
        if self._has_expired(call, signature):
            log.info("call.expired", action=call.action)
            return error_responses.expired_session(form), 0.0
        answer = self._execute(call, request, form)
        return answer, self._parts.faults.response_delay_s(call.action, time.time())

    def _has_expired(self, call: Call, signature: Signature | None) -> bool:
        """Whether a fault says that the caller's credentials have expired."""
        is_operator = signature is not None and self._parts.keys.is_operator(signature.key_id)
        return is_operator and self._parts.faults.has_expired(call.action, time.time())

    def receive(self, call: Call, request: AwsRequest) -> tuple[Answer, bool]:
        """The answer to a ReceiveMessage that does not wait, and whether it is final."""
        answer = self._ask(call, request)
        if answer.is_success and any(mark in answer.body for mark in MESSAGE_MARKS):
            form = error_responses.form_of(call.service, request)
            return self._store(form, answer), True
        self._parts.account.forget_reads()
        return answer, not answer.is_success

    def _execute(self, call: Call, request: AwsRequest, form: ErrorForm) -> Answer:
        now = time.time()
        if (answer := self._answer_by_fault(call, request, form, now)) is not None:
            return answer
        if (answer := self._answer_without_moto(call, request, now)) is not None:
            return answer
        if call.service not in SERVICES:
            return error_responses.unknown_operation(
                form, f"The local cloud has no service {call.service[:100]!r}"
            )
        if call.service != "s3" and request.has_header("Content-Encoding"):
            return error_responses.invalid_request(form, "Content-Encoding is not supported")
        if missing := missing_parameters(call, request):
            return error_responses.missing_parameter(form, missing[0])
        if call.mutating:
            return self._change(call, request, form)
        return self._read(call, request, now)

    def _answer_without_moto(self, call: Call, request: AwsRequest, now: float) -> Answer | None:
        """The answer of a service that moto lacks; None for the others."""
        if call.service == PRICING:
            return pricing.answer(call.action, request.body)
        if call.service == QUOTAS:
            return service_quotas.answer(call.action, request.body, self._parts.faults, now)
        return None

    def _answer_by_fault(
        self, call: Call, request: AwsRequest, form: ErrorForm, now: float
    ) -> Answer | None:
        """The answer of a fault that keeps the call from moto; None if there is none."""
        if self._parts.faults.closes(call.region, now):
            return error_responses.closed_region(form)
        if self._parts.faults.denies(action_of(call), now):
            log.info("call.denied", action=call.action)
            return error_responses.denied(form, action_of(call))
        if self._is_throttled(call, now):
            log.info("call.throttled", action=call.action)
            return error_responses.throttled(form, call.action)
        if call.action == "TerminateInstances" and self._parts.faults.ignores_termination(now):
            log.info("call.ignored", action=call.action)
            return error_responses.terminating(request.body)
        return None

    def _is_throttled(self, call: Call, now: float) -> bool:
        """Other services than EC2 are throttled only where a fault names the call."""
        faults = self._parts.faults
        if call.service != "ec2" and not faults.names(call.action, now):
            return False
        return faults.throttles(call.action, now)

    def _read(self, call: Call, request: AwsRequest, now: float) -> Answer:
        """The answer to a call that changes nothing, from an old state while EC2 lags."""
        parts = self._parts
        is_describe = call.service == "ec2" and call.action.startswith("Describe")
        lag_s = parts.faults.lag_s(now) if is_describe else 0.0
        try:
            if not lag_s:
                return self._ask(call, request)
            with parts.history.as_of(now - lag_s):
                return self._ask(call, request)
        finally:
            parts.account.forget_reads()

    def _change(self, call: Call, request: AwsRequest, form: ErrorForm) -> Answer:
        parts = self._parts
        answer = self._store(form, self._ask(call, request))
        if call.service == "ec2":
            parts.history.note()
            parts.changed()
        if call.service != "s3" or not answer.is_success:
            log.info(
                "call",
                service=call.service,
                action=call.action[:100],
                status=answer.status,
                save_ms=round(parts.account.last_save_s * 1000, 1),
            )
        return answer

    def _store(self, form: ErrorForm, answer: Answer) -> Answer:
        """Save the account; if that fails, the call changes nothing and the answer says so."""
        try:
            self._parts.account.save()
        except NotStoredError as error:
            return error_responses.not_stored(form, str(error))
        return answer

    def _ask(self, call: Call, request: AwsRequest) -> Answer:
        """The answer of moto, or in AWS's form the error that it raised."""
        form = error_responses.form_of(call.service, request)
        try:
            return diagnosis.in_aws_form(self._parts.moto.call(call.service, request), form)
        except Exception as error:  # the call ends with an error to its caller, and nothing else
            self._parts.account.revert()
            reason = diagnosis.caller_fault(error)
            if reason is None:
                return self._internal_error(call, form, error)
            log.warning("call.malformed", **_names(call), reason=reason, at=diagnosis.place(error))
            if isinstance(error, NotImplementedError):
                return error_responses.unknown_operation(form, reason)
            return error_responses.invalid_request(form, reason)

    def _internal_error(self, call: Call, form: ErrorForm, error: Exception) -> Answer:
        error_id = secrets.token_hex(8)
        self._parts.count_error()
        log.error("unhandled_error", id=error_id, port="local", **_names(call), exc_info=error)
        return error_responses.internal_error(form, error_id)


def _names(call: Call) -> Mapping[str, str]:
    return {"service": call.service[:40], "action": call.action[:100]}
