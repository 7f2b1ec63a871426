"""Snapshots of a cluster's state: their record, their names and which of them are kept. Pure.

A snapshot holds records of ZooKeeper as they are stored, each with its own schema, by their paths.
Its name has the time and the deployment, so that a list of names tells what there is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated

import msgspec

from mesaform.common.records import DOCUMENT_LIMIT_BYTES, Codec

NO_DEPLOYMENT = "none"
"""Stands for the id of a deployment that has none."""

DAY_S = 86400.0
_TIME = "%Y-%m-%dT%H-%M-%SZ"
_NAME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d-\d\d-\d\dZ)\.([A-Za-z0-9-]{1,64})")
_MAX_EPOCH_S = 253402300799


class Retention(msgspec.Struct, frozen=True, kw_only=True):
    """How often snapshots are written, and which are kept (`snapshots` of cluster.yaml).

    Attributes:
        interval_s: time from one snapshot to the next.
        keep_newest: how many of a deployment are kept.
        keep_days: days of which the last one is kept besides.
        keep_former_days: days for which the last one of another deployment of the name is kept.

    """

    interval_s: float = 3600.0
    keep_newest: int = 48
    keep_days: int = 14
    keep_former_days: int = 90


DEFAULT_RETENTION = Retention()


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """The state of one cluster at one time (`at`, epoch seconds).

    `nodes` are the records by their ZooKeeper paths, such as `/marathon/apps/%2Fweb`.
    """

    cluster: Annotated[str, msgspec.Meta(min_length=1, max_length=100)]
    deployment: Annotated[str, msgspec.Meta(max_length=64)]
    at: Annotated[float, msgspec.Meta(ge=0, le=_MAX_EPOCH_S)]
    nodes: dict[Annotated[str, msgspec.Meta(pattern="^/[^/]", max_length=2000)], bytes]


SNAPSHOT = Codec(
    "snapshots.state", Snapshot, limit_bytes=DOCUMENT_LIMIT_BYTES, compress_above_bytes=0
)


@dataclass(frozen=True, slots=True, order=True)
class SnapshotName:
    """The name of a snapshot. `at` is in whole seconds since the epoch."""

    at: float
    deployment: str

    @classmethod
    def of(cls, at: float, deployment: str) -> SnapshotName:
        """The name of a snapshot of this time and deployment."""
        return cls(float(int(at)), deployment or NO_DEPLOYMENT)

    def __str__(self) -> str:
        return f"{self.when}.{self.deployment}"

    @property
    def when(self) -> str:
        """The time as `2026-11-27T04-00-00Z`, which sorts like the time."""
        return datetime.fromtimestamp(self.at, UTC).strftime(_TIME)


def parse_name(text: str) -> SnapshotName | None:
    """The name in a text; None if it is none."""
    match = _NAME.fullmatch(text)
    if match is None:
        return None
    try:
        at = datetime.strptime(match[1], _TIME).replace(tzinfo=UTC).timestamp()
    except ValueError:
        return None
    return SnapshotName(at, match[2])


def surplus(
    names: Iterable[SnapshotName],
    deployment: str,
    now: float,
    retention: Retention = DEFAULT_RETENTION,
) -> list[SnapshotName]:
    """The snapshots that need not be kept, oldest first.

    Of the deployment the newest ones are kept, and the last one of each of some days before `now`;
    of each other deployment the last one for some days. The newest snapshot of the deployment is
    always kept.

    Args:
        names: all snapshots of the cluster's name.
        deployment: the deployment that runs.
        now: epoch seconds.
        retention: how many of each are kept.

    """
    newest_first = sorted(names, reverse=True)
    own = [name for name in newest_first if name.deployment == (deployment or NO_DEPLOYMENT)]
    daily = _last_of_each_day(name for name in own if name.at > now - retention.keep_days * DAY_S)
    former = _last_of_others(newest_first, own[:1], now - retention.keep_former_days * DAY_S)
    return sorted(set(newest_first) - {*own[: max(1, retention.keep_newest)], *daily, *former})


def _last_of_others(
    newest_first: Iterable[SnapshotName], newest_own: Sequence[SnapshotName], since: float
) -> set[SnapshotName]:
    last: dict[str, SnapshotName] = {name.deployment: name for name in newest_own}
    for name in newest_first:
        last.setdefault(name.deployment, name)
    return {name for name in last.values() if name.at > since}


def _last_of_each_day(newest_first: Iterable[SnapshotName]) -> set[SnapshotName]:
    last: dict[int, SnapshotName] = {}
    for name in newest_first:
        last.setdefault(int(name.at // DAY_S), name)
    return set(last.values())


def choose(names: Iterable[SnapshotName], when: str, deployment: str) -> SnapshotName | None:
    """The newest snapshot whose name begins with `when`; None if there is none.

    Args:
        names: the snapshots to choose from.
        when: empty for the newest; `2026-11-27` for the last one of that day.
        deployment: only those of this deployment; empty: of any.

    """
    matching = [
        name for name in names if str(name).startswith(when) and deployment in ("", name.deployment)
    ]
    return max(matching, default=None)
