"""Set-up of structured logs for the daemons: one JSON object a line. Needs structlog."""

from __future__ import annotations

import contextlib
import logging
import sys
from typing import TextIO, cast

import structlog
from structlog.typing import Processor


class _LossyStderr:
    """The present stderr. It drops what cannot be written: a full disk must not end what logs."""

    def write(self, text: str) -> int:
        """Write the text if that is possible."""
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush if that is possible."""
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.flush()


def _stderr_loggers() -> structlog.PrintLoggerFactory:
    return structlog.PrintLoggerFactory(cast("TextIO", _LossyStderr()))


def print_events_to_stderr() -> None:
    """Send structlog's events to stderr as text for people; stdout has a verb's answer."""
    structlog.configure(logger_factory=_stderr_loggers())


def configure_logging(level: int = logging.INFO) -> None:
    """Send structlog's events and the standard library's records to stderr as JSON lines.

    Each line has `timestamp` (UTC, ISO 8601), `level`, `event` and the event's own fields. Called
    once, by a program's composition root.
    """
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*shared, structlog.processors.JSONRenderer()],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=_stderr_loggers(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    logging.basicConfig(level=level, handlers=[handler], force=True)
