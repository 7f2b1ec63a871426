"""What a snapshot holds of the state, and whether a snapshot can be restored. No I/O.

A snapshot is validated as a whole before anything of it is written.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import quote, unquote

from mesaform.common.errors import BadInput
from mesaform.common.records import ZOOKEEPER_LIMIT_BYTES, Unreadable
from mesaform.common.snapshots import NO_DEPLOYMENT, Snapshot
from mesaform.services.model import App, Deployment, Instance
from mesaform.services.records import APP, DEPLOYMENT, FRAMEWORK_ID, INSTANCE, Record, encode
from mesaform.topology.zookeeper import ZK_AUTOSCALER_RESTORED, ZK_AUTOSCALER_STATE

FRAMEWORK_ID_KIND = "framework_id"
AUTOSCALER_KIND = "autoscaler"
MOST_PROBLEMS = 5


@dataclass(frozen=True, slots=True)
class StateContent:
    """The state at one time. The values are immutable, so a copy of the tables is a snapshot.

    `autoscaler` is the record of the autoscaler's state as it is stored; empty without one.
    """

    apps: tuple[App, ...]
    instances: tuple[Instance, ...]
    deployments: tuple[Deployment, ...]
    framework_id: str = ""
    autoscaler: bytes = b""

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to restore."""
        return not (self.apps or self.instances or self.deployments)


@dataclass(frozen=True, slots=True)
class Restoration:
    """What a restoration writes: records by their paths, and how many there are of each kind."""

    nodes: Mapping[str, bytes]
    counts: Mapping[str, int]


def content_nodes(content: StateContent, root: str) -> dict[str, bytes]:
    """The records of a state by their paths in ZooKeeper.

    Raises:
        RecordRefused: a value cannot be stored.

    """
    nodes: dict[str, bytes] = {}
    keyed: Iterable[tuple[str, str, Record]] = (
        *(("apps", app.id, app) for app in content.apps),
        *(("instances", item.task_id, item) for item in content.instances),
        *(("deployments", item.id, item) for item in content.deployments),
    )
    for kind, key, value in keyed:
        nodes[f"{root}/{kind}/{quote(key, safe='')}"] = encode(value)
    if content.framework_id:
        nodes[f"{root}/{FRAMEWORK_ID_KIND}"] = FRAMEWORK_ID.encode(content.framework_id)
    if content.autoscaler:
        nodes[ZK_AUTOSCALER_STATE] = content.autoscaler
    return nodes


def read_restoration(
    snapshot: Snapshot | Unreadable,
    *,
    cluster: str,
    deployment: str,
    root: str,
    any_deployment: bool = False,
) -> Restoration:
    """Validate a snapshot whole, for this cluster and deployment.

    Raises:
        BadInput: it cannot be read, is another cluster's or deployment's, or one of its records
            cannot be read.

    """
    if isinstance(snapshot, Unreadable):
        raise BadInput(f"the snapshot cannot be read: {snapshot}")
    _require_origin(snapshot, cluster, None if any_deployment else deployment)
    nodes: dict[str, bytes] = {}
    counts: Counter[str] = Counter()
    problems: list[str] = []
    for path, data in sorted(snapshot.nodes.items()):
        kind, problem = _check(path, data, root)
        if problem:
            problems.append(f"{path[:200]}: {problem}")
            continue
        counts[kind] += 1
        nodes[ZK_AUTOSCALER_RESTORED if kind == AUTOSCALER_KIND else path] = data
    if problems:
        raise BadInput(
            f"{len(problems)} records of the snapshot cannot be restored:"
            f" {'; '.join(problems[:MOST_PROBLEMS])}"
        )
    return Restoration(nodes, dict(counts))


def _require_origin(snapshot: Snapshot, cluster: str, deployment: str | None) -> None:
    """Check whose snapshot it is; `deployment` None: any deployment's.

    Raises:
        BadInput: it is another cluster's or deployment's.

    """
    if snapshot.cluster != cluster:
        raise BadInput(f"the snapshot is of the cluster {snapshot.cluster}, not of {cluster}")
    if deployment is not None and snapshot.deployment != deployment:
        raise BadInput(
            f"the snapshot is of the deployment {snapshot.deployment or NO_DEPLOYMENT}, this is"
            f" {deployment or NO_DEPLOYMENT}",
            fix="give --any-deployment to restore it all the same",
        )


def _check(path: str, data: bytes, root: str) -> tuple[str, str]:
    """The kind of a record and what is wrong with it; nothing: empty."""
    if len(data) > ZOOKEEPER_LIMIT_BYTES:
        return "", f"{len(data)} bytes are too many for ZooKeeper"
    if path == ZK_AUTOSCALER_STATE:
        return AUTOSCALER_KIND, ""
    kind, _, name = path.removeprefix(f"{root}/").partition("/")
    if not path.startswith(f"{root}/") or "/" in name:
        return "", "this version knows no such record"
    return kind, _problem_of(kind, unquote(name), data)


def _problem_of(kind: str, key: str, data: bytes) -> str:
    value: App | Instance | Deployment | str | Unreadable
    match kind:
        case "apps":
            value = APP.decode(data)
        case "instances":
            value = INSTANCE.decode(data)
        case "deployments":
            value = DEPLOYMENT.decode(data)
        case _ if kind == FRAMEWORK_ID_KIND and not key:
            value = FRAMEWORK_ID.decode(data)
        case _:
            return "this version knows no such record"
    if isinstance(value, Unreadable):
        return str(value)
    own = _key_of(value)
    return "" if own == key else f"the record is of {own[:200]!r}"


def _key_of(value: App | Instance | Deployment | str) -> str:
    if isinstance(value, str):
        return ""
    return value.task_id if isinstance(value, Instance) else value.id
