"""Opens logs and consoles: readable by the owner and his group alone."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

LOG_MODE = 0o640
CONSOLE_MODE = 0o600
"""A console has what user data prints, such as presigned URLs."""


def open_log(path: Path, mode: int = LOG_MODE) -> BinaryIO:
    """The file, opened for appending; a file from before this rule gets the mode, too."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, mode)
    os.fchmod(descriptor, mode)
    return os.fdopen(descriptor, "ab", buffering=0)
