"""What the builder tells the operator while it works: one JSON object in S3, put again after each step, and its log at the end."""

from __future__ import annotations

import json
import time
import urllib.request
from dataclasses import asdict, dataclass, field


@dataclass
class Done:
    """A step that ended."""

    name: str
    seconds: float


@dataclass
class Progress:
    """`state` is running, done or failed; `step` is the one under way, or the one that failed."""

    state: str = "running"
    step: str = ""
    error: str = ""
    steps: list[Done] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)


def put(url: str, data: bytes, attempts: int = 5) -> None:
    """Upload to a presigned URL.

    The type is said because urllib's own is that of a form, which not every S3 takes for content.

    Raises:
        OSError: it failed each time.

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
    """The report as JSON."""
    return json.dumps(asdict(progress)).encode()
