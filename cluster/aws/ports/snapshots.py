"""The port for snapshots of a cluster's state, and the request to restore one.

A request and its answer are control objects: operators cannot reach ZooKeeper, and the leader of
services carries the request out (docs/adr/0033). Calls block.
"""

from __future__ import annotations

from typing import Annotated, Protocol

import msgspec

from mesaform.common.records import Codec, Unreadable
from mesaform.common.snapshots import Snapshot, SnapshotName

RESTORE_REQUEST_NAME = "restore-request"
RESTORE_ANSWER_NAME = "restore-answer"

Text = Annotated[str, msgspec.Meta(max_length=4096)]


class RestoreRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The last request. `id` is unique; `at` is epoch seconds; `by` is user and host.

    `snapshot` is the name of the snapshot. `any_deployment` allows one of another deployment.
    """

    id: Text
    snapshot: Text
    at: float
    by: Text
    any_deployment: bool = False


class RestoreAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to the last request. `error` is empty if it was carried out."""

    id: str
    error: str = ""
    restored: dict[str, int] = {}


RESTORE_REQUEST = Codec("control.restore-request", RestoreRequest)
RESTORE_ANSWER = Codec("control.restore-answer", RestoreAnswer)


class SnapshotStore(Protocol):
    """Where the snapshots of a cluster's name are."""

    def names(self) -> list[SnapshotName]:
        """All snapshots, oldest first.

        Raises:
            CloudError: S3 does not answer.

        """
        ...

    def read(self, name: SnapshotName) -> Snapshot | Unreadable:
        """One snapshot, or why it cannot be read.

        Raises:
            NotFound: there is none.
            CloudError: S3 does not answer.

        """
        ...

    def write(self, snapshot: Snapshot) -> SnapshotName:
        """Store a snapshot. Idempotent.

        Raises:
            RecordRefused: it is too large.
            CloudError: S3 does not answer.

        """
        ...

    def remove(self, name: SnapshotName) -> None:
        """Delete a snapshot. Idempotent."""
        ...
