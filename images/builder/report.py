"""Report of the builder to the operator: a JSON object in S3 that each step replaces, and the log.

Standard library only.
"""

from __future__ import annotations

import json
import time
import urllib.request
from dataclasses import asdict, dataclass, field


@dataclass
class Done:
    """A completed step."""

    name: str
    seconds: float


@dataclass
class Progress:
    """State of the bake: running, done or failed; `step` is the current or the failed step."""

    state: str = "running"
    step: str = ""
    error: str = ""
    steps: list[Done] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)


def put(url: str, data: bytes, attempts: int = 5) -> None:
    """Upload to a presigned URL.

    The content type is explicit: urllib's default is that of a form, which not every S3 accepts.

    Raises:
        OSError: every attempt failed.

    """
    request = urllib.request.Request(
        url, data, {"Content-Type": "application/octet-stream"}, method="PUT"
    )
    for attempt in range(attempts):
        try:
            with urllib.request.urlopen(request, timeout=60):
                return
        except OSError:
            if attempt == attempts - 1:
                raise
            time.sleep(attempt + 1)


def encode(progress: Progress) -> bytes:
    """Return the report as JSON."""
    return json.dumps(asdict(progress)).encode()
