"""Port to the objects by which operators and the autoscaler communicate.

S3 is strongly consistent, so no read is stale. Every call raises `Retryable` if S3 does not answer
and `Permanent` if a right is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NotRequired, Protocol, TypedDict

from mesaform.aws.overrides import Override
from mesaform.common.records import Codec, Unreadable, Value
from mesaform.common.set_aside import SetAside

Document = dict[str, Any]
"""A JSON object of the autoscaler; its reader decodes it into a type."""


class Heartbeat(TypedDict):
    """Last sign of life of the autoscaler's leader.

    `at` is in seconds since the epoch; `frozen` is whether the leader obeys a freeze; `address` is
    that of its HTTP port; `planner_state` is what `mesaform plan` plans from. `set_aside` are the
    records that were set aside in ZooKeeper, `reasons` why the leader cannot work.
    """

    at: float
    frozen: bool
    address: str
    planner_state: Document
    set_aside: NotRequired[list[SetAside]]
    reasons: NotRequired[list[str]]


Overrides = tuple[Override, ...]


class Control(Protocol):
    """The control objects of one cluster."""

    def freeze(self, reason: str) -> None:
        """Tell the autoscaler to launch and remove nothing until `unfreeze`. Idempotent."""
        ...

    def unfreeze(self) -> None:
        """End the freeze. Idempotent."""
        ...

    def frozen_reason(self) -> str | None:
        """Return the reason of the freeze in force, or None.

        A freeze that cannot be read is in force.
        """
        ...

    def write_heartbeat(
        self,
        at: float,
        *,
        frozen: bool,
        address: str,
        planner_state: Mapping[str, object] | None = None,
        set_aside: Sequence[SetAside] = (),
        reasons: Sequence[str] = (),
    ) -> None:
        """Replace the heartbeat. Idempotent. See `Heartbeat`."""
        ...

    def last_heartbeat(self) -> Heartbeat | None:
        """Return the last heartbeat; None before the first."""
        ...

    def write_record(self, name: str, codec: Codec[Value], value: Value) -> None:
        """Replace the record of that name. Idempotent.

        Raises:
            RecordRefused: the codec refuses the value.

        """
        ...

    def read_record(self, name: str, codec: Codec[Value]) -> Value | Unreadable | None:
        """Return the record of that name; None if it does not exist.

        The leader keeps a copy of an unreadable record, which it may overwrite then.
        """
        ...

    def overrides(self) -> Overrides:
        """Return all overrides that were not withdrawn, expired ones included, oldest first.

        The leader keeps a copy of overrides that cannot be read, and pauses instead.

        Raises:
            MesaformError: they cannot be read, and this is not the leader.

        """
        ...

    def update_overrides(self, change: Callable[[Overrides], Overrides]) -> Overrides:
        """Replace the overrides by `change(overrides)` and return them.

        Compare-and-swap: no concurrent change is lost. `change` may be called more than once.

        Raises:
            Retryable: others changed the overrides all the time, or S3 did not answer.

        """
        ...
