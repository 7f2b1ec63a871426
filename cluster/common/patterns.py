"""Regular expressions that users and frameworks write, matched in time linear in the text.

They have the syntax of RE2 (https://github.com/google/re2/wiki/Syntax), which Apache Mesos uses for
offer constraints. It has no look-around and no back-references, whose matching can take
exponential time. Depends on google-re2, which is imported with the first pattern (4 MiB).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

MAX_PATTERN_BYTES = 256 * 1024
"""Memory of one compiled pattern. It bounds its states, and so the time for each character."""

MOST_PATTERNS = 128
MOST_ANSWERS = 4096


class BadPattern(ValueError):
    """A text is no regular expression, or needs too much memory."""


@lru_cache(maxsize=MOST_ANSWERS)
def matches(pattern: str, text: str) -> bool:
    """Whether a pattern matches the whole text.

    Raises:
        BadPattern: see `require_pattern`.

    """
    try:
        return compiled(pattern).fullmatch(text) is not None
    except UnicodeEncodeError:
        return False


def require_pattern(pattern: str) -> None:
    """Raise unless the text is a pattern.

    Raises:
        BadPattern: it is not; the message says why.

    """
    compiled(pattern)


@lru_cache(maxsize=MOST_PATTERNS)
def compiled(pattern: str) -> Any:
    """The pattern, compiled; see `require_pattern`."""
    import re2

    options = re2.Options()
    options.max_mem = MAX_PATTERN_BYTES
    options.log_errors = False
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        reason = error.args[0] if error.args else ""
        text = reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)
    except UnicodeEncodeError:
        text = "it has half of a surrogate pair"
    raise BadPattern(text)
