"""Calls of AWS during a bake: retries, tags, and clean-ups that ignore Ctrl-C."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TypeVar

from mesaform.aws.errors import translate_errors
from mesaform.common.backoff import Backoff
from mesaform.common.errors import NotFound, Retryable
from mesaform.topology.names import Tag

if TYPE_CHECKING:
    from mypy_boto3_ec2.type_defs import FilterTypeDef, TagTypeDef

T = TypeVar("T")

IMAGE_TAGS: Mapping[str, str] = {Tag.MANAGED_BY: "bake"}
BUILDER_TAGS: Mapping[str, str] = {Tag.ROLE: "builder", **IMAGE_TAGS}

ATTEMPTS = 6
RETRY = Backoff(first_s=0.5, cap_s=8.0)


def call_with_retry(where: str, call: Callable[[], T]) -> T:
    """Make an AWS call, up to `ATTEMPTS` times while its error is retryable.

    Raises:
        CloudError: AWS refused, or the last attempt failed.

    """
    for attempt in range(1, ATTEMPTS):
        try:
            with translate_errors(where):
                return call()
        except Retryable as error:
            time.sleep(min(error.after_s, RETRY.delay_s(attempt)))
    with translate_errors(where):
        return call()


def call_unless_absent(where: str, call: Callable[[], object]) -> None:
    """Make an AWS call; it is no error if the named thing does not exist."""
    with suppress(NotFound):
        call_with_retry(where, call)


def tag_list(tags: Mapping[str, str]) -> list[TagTypeDef]:
    """Return tags in the form of EC2's requests."""
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def tag_filters(tags: Mapping[str, str]) -> list[FilterTypeDef]:
    """Return filters for resources that carry all of these tags."""
    return [{"Name": f"tag:{key}", "Values": [value]} for key, value in tags.items()]


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Ignore SIGINT, SIGTERM and SIGHUP in the block, so that a clean-up completes.

    Does nothing outside the main thread, which alone can be interrupted.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    handlers = {number: signal.signal(number, signal.SIG_IGN) for number in signals}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def poll_pause_s(elapsed_s: float) -> float:
    """Pause between polls: short at first (the local cloud), then longer (AWS)."""
    return min(5.0, max(0.15, elapsed_s / 20))
