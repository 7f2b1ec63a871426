"""Whose fault an error of a call is, and moto's error pages in AWS's form.

moto does not validate requests as AWS does: a missing or malformed parameter makes its code raise
some exception. One that moto's code raised while it handled a call is therefore taken as caused by
the call's parameters, and answered as AWS answers those. One that was raised by this package's own
code, or for want of memory or files, is a defect of the local cloud. docs/adr/0028 has the reasons.
"""

from __future__ import annotations

import traceback
from types import FrameType

from mesaform.localcloud.error_responses import (
    Answer,
    ErrorForm,
    invalid_request,
    unknown_operation,
)

_OWN = "mesaform."
_MOTO = "moto."
_DEFECTS = (MemoryError, OSError)
"""Errors that parameters do not cause, wherever they are raised."""
_NOT_IMPLEMENTED = 501


def caller_fault(error: Exception) -> str | None:
    """What is wrong with the call that made moto raise; None for a defect of the local cloud."""
    if isinstance(error, _DEFECTS) and not isinstance(error, UnicodeError):
        return None
    if isinstance(error, NotImplementedError):
        return str(error)[:200] or "The operation is not implemented"
    if not _was_raised_by_moto(error):
        return None
    return f"A parameter of the request is missing or malformed ({type(error).__name__})"


def place(error: Exception) -> str:
    """Where an error was raised, as module and line."""
    frames = list(traceback.walk_tb(error.__traceback__))
    if not frames:
        return ""
    frame, line = frames[-1]
    return f"{_module(frame)}:{line}"


def _was_raised_by_moto(error: Exception) -> bool:
    """Whether the innermost code that is moto's or this package's own is moto's."""
    for frame, _line in reversed(list(traceback.walk_tb(error.__traceback__))):
        module = _module(frame)
        if module.startswith(_MOTO):
            return True
        if module.startswith(_OWN):
            return module == MOTO_CALLER
    return False


MOTO_CALLER = "mesaform.localcloud.moto_app"
"""The module that calls moto: an exception below it is of werkzeug or Flask, about the request."""


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", ""))


def in_aws_form(answer: Answer, form: ErrorForm) -> Answer:
    """The answer, or an error document in place of an error page of Flask's or of nothing."""
    if answer.status < 400:
        return answer
    if answer.status == _NOT_IMPLEMENTED:
        return unknown_operation(form, "The operation is not implemented")
    if not answer.body:  # S3 answers HEAD so, and moto an operation without a name
        return answer if form is ErrorForm.S3 else unknown_operation(form, _NO_OPERATION)
    if not _is_page(answer):
        return answer
    if answer.status in {404, 405}:
        return unknown_operation(form, _NO_OPERATION)
    return invalid_request(form, "The request cannot be read")


_NO_OPERATION = "There is no such operation"


def _is_page(answer: Answer) -> bool:
    """Whether the body is HTML, and not XML that moto calls HTML."""
    kind = next((value for name, value in answer.headers if name.lower() == "content-type"), "")
    start = answer.body.lstrip()[:14].lower()
    return kind.startswith("text/html") and start.startswith((b"<!doctype html", b"<html"))
