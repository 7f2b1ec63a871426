"""Whose fault an error of a call is, and moto's error pages in AWS's form.

moto does not validate requests as AWS does: a missing or malformed parameter makes its code raise
some exception. One that moto's code raised while it handled a call is therefore taken as caused by
the call's parameters, and answered as AWS answers those. One that was raised by this package's own
code, or for want of memory or files, is a defect of the local cloud. docs/adr/0026 has the reasons.
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
    if answer.status < 400 or (answer.status == 404 and form is ErrorForm.S3):
        return answer
    is_page = any(
        name.lower() == "content-type" and value.startswith("text/html")
        for name, value in answer.headers
    )
    is_page = is_page and not answer.body.lstrip().startswith(b"<?xml")
    if answer.status == _NOT_IMPLEMENTED:
        return unknown_operation(form, "The operation is not implemented")
    if is_page and answer.status in {404, 405}:
        return unknown_operation(form, "There is no such operation")
    if is_page:
        return invalid_request(form, "The request cannot be read")
    if not answer.body and form is not ErrorForm.S3:
        return unknown_operation(form, "There is no such operation")
    return answer
