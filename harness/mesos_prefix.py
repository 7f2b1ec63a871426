"""The Apache Mesos that tests and benchmarks use. It is not part of the product."""

from __future__ import annotations

import os
from pathlib import Path

PREFIX_VARIABLE = "MESAFORM_TEST_MESOS"
"""The folder into which Apache Mesos is installed."""


def mesos_prefix() -> Path | None:
    """Where Apache Mesos is installed; None when it is not."""
    prefix = os.environ.get(PREFIX_VARIABLE)
    if not prefix or not (Path(prefix) / "sbin" / "mesos-master").exists():
        return None
    return Path(prefix)
