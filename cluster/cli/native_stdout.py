"""Standard output kept for results."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def redirect_native_stdout() -> Iterator[None]:
    """Send what a C library (HiGHS) prints on standard output to standard error in the block."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        ctypes.CDLL(None).fflush(None)  # its buffer too, before the descriptor is ours again
        os.dup2(kept, 1)
        os.close(kept)
