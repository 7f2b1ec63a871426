"""A copy of a cluster's folder in which a verb may write what a dry run must not leave behind."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mesaform.config.schema import ClusterSpec
from mesaform.provision import deployment
from mesaform.provision.cluster_context import ClusterContext
from mesaform.provision.shared_state import MARK
from mesaform.provision.state_folders import STACKS, state_file


@dataclass(frozen=True, slots=True)
class RehearsedCluster:
    """A cluster whose folder is a copy. See `ClusterContext`."""

    spec: ClusterSpec
    file: Path
    cluster_dir: Path


@contextmanager
def rehearsal(place: ClusterContext) -> Iterator[RehearsedCluster]:
    """Yield the cluster with a copy of its record and states, and remove the copy afterwards."""
    with tempfile.TemporaryDirectory(prefix="mesaform-") as folder:
        copy = RehearsedCluster(place.spec, place.file, Path(folder))
        names = (deployment.FILE_NAME, MARK, *(state_file(Path(), stack).name for stack in STACKS))
        for name in names:
            original = place.cluster_dir / name
            if original.exists():
                shutil.copy2(original, copy.cluster_dir / name)
        yield copy
