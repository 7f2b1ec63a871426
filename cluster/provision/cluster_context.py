"""Interface to a cluster on the operator's machine; `mesaform.cli.context.Context` provides it."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from mesaform.config.schema import ClusterSpec


class ClusterContext(Protocol):
    """A cluster's spec, its file, and its state folder."""

    @property
    def spec(self) -> ClusterSpec: ...

    @property
    def file(self) -> Path: ...

    @property
    def cluster_dir(self) -> Path: ...
