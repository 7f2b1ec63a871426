"""The v1 scheduler API of Mesos: the structs of its calls and events, and builders for the calls.

The JSON of each struct is the JSON on the wire. The framework client (`scheduler`), the engine's
master and every other framework of this project use these structs. Shapes, field names and call
names are from include/mesos/v1/scheduler/scheduler.proto of Apache Mesos. An event or call of a
type that is not named here decodes too: it has its `type` and nothing else.
Depends on `messages`.
"""

# ruff: noqa: RUF012  (msgspec copies mutable defaults)

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, get_args

import msgspec

from mesaform.mesos.messages import (
    DiskSourceType,
    ExecutorInfo,
    Filters,
    FrameworkInfo,
    Id,
    KillPolicy,
    MasterInfo,
    Message,
    Offer,
    Resource,
    Scalar,
    TaskInfo,
    TaskStatus,
)

# --- events: from the master to a framework


class Subscribed(Message, frozen=True, kw_only=True):
    """The first event of a subscription; it names the framework's id."""

    framework_id: Id
    heartbeat_interval_seconds: float = 15.0
    master_info: MasterInfo | None = None


class Offers(Message, frozen=True, kw_only=True):
    """New offers. Each stays valid until it is used, declined or rescinded."""

    offers: list[Offer] = []


class Rescind(Message, frozen=True, kw_only=True):
    """An offer is no longer valid."""

    offer_id: Id


class Update(Message, frozen=True, kw_only=True):
    """A task's status. The framework acknowledges it when the status has a uuid."""

    status: TaskStatus


class ExecutorMessage(Message, frozen=True, kw_only=True):
    """MESSAGE, from an executor or to it; `data` is base64 on the wire."""

    agent_id: Id
    executor_id: Id
    data: bytes


class Failure(Message, frozen=True, kw_only=True):
    """An agent is gone, or an executor when `executor_id` is set."""

    agent_id: Id | None = None
    executor_id: Id | None = None
    status: int | None = None


class Error(Message, frozen=True, kw_only=True):
    """The master ends the subscription for this reason."""

    message: str


class Event(Message, frozen=True, kw_only=True):
    """An event of the stream. `type` names the field that is set; HEARTBEAT has none."""

    type: str
    subscribed: Subscribed | None = None
    offers: Offers | None = None
    rescind: Rescind | None = None
    update: Update | None = None
    message: ExecutorMessage | None = None
    failure: Failure | None = None
    error: Error | None = None


# --- calls: from a framework to the master


class Exists(Message, frozen=True, kw_only=True):
    """The predicate that an attribute exists, or that it does not."""


class TextValue(Message, frozen=True, kw_only=True):
    value: str


class Regex(Message, frozen=True, kw_only=True):
    regex: str


class AttributePredicate(Message, frozen=True, kw_only=True):
    """What an attribute must be. One field is set."""

    exists: Exists | None = None
    not_exists: Exists | None = None
    text_equals: TextValue | None = None
    text_not_equals: TextValue | None = None
    text_matches: Regex | None = None
    text_not_matches: Regex | None = None


class AttributeSelector(Message, frozen=True, kw_only=True):
    """Which attribute is meant: one of the agent, or its host name, region or zone."""

    pseudoattribute_type: Literal["UNKNOWN", "HOSTNAME", "REGION", "ZONE"] | None = None
    attribute_name: str | None = None


class AttributeConstraint(Message, frozen=True, kw_only=True):
    selector: AttributeSelector
    predicate: AttributePredicate


class ConstraintGroup(Message, frozen=True, kw_only=True):
    """Constraints that must all hold."""

    attribute_constraints: list[AttributeConstraint] = []


class RoleConstraints(Message, frozen=True, kw_only=True):
    """Groups of which one must hold."""

    groups: list[ConstraintGroup] = []


class OfferConstraints(Message, frozen=True, kw_only=True):
    """By role, the agents whose offers the framework wants."""

    role_constraints: dict[str, RoleConstraints] = {}


class Subscribe(Message, frozen=True, kw_only=True):
    """Open the event stream, as a new framework or as the one that `framework_info.id` names."""

    framework_info: FrameworkInfo
    suppressed_roles: list[str] = []
    offer_constraints: OfferConstraints | None = None


class LaunchOperation(Message, frozen=True, kw_only=True):
    """LAUNCH: start these tasks on the offered resources."""

    task_infos: list[TaskInfo] = []


class TaskGroup(Message, frozen=True, kw_only=True):
    """Tasks that start and end together in one executor."""

    tasks: list[TaskInfo] = []


class LaunchGroupOperation(Message, frozen=True, kw_only=True):
    """LAUNCH_GROUP: start a task group on the offered resources."""

    executor: ExecutorInfo
    task_group: TaskGroup


class ReserveOperation(Message, frozen=True, kw_only=True):
    source: list[Resource] = []
    resources: list[Resource] = []


class UnreserveOperation(Message, frozen=True, kw_only=True):
    resources: list[Resource] = []


class VolumesOperation(Message, frozen=True, kw_only=True):
    """CREATE or DESTROY persistent volumes."""

    volumes: list[Resource] = []


class GrowVolumeOperation(Message, frozen=True, kw_only=True):
    volume: Resource
    addition: Resource


class ShrinkVolumeOperation(Message, frozen=True, kw_only=True):
    volume: Resource
    subtract: Scalar


class CreateDiskOperation(Message, frozen=True, kw_only=True):
    source: Resource
    target_type: DiskSourceType
    target_profile: str | None = None


class DestroyDiskOperation(Message, frozen=True, kw_only=True):
    source: Resource


OperationType = Literal[
    "UNKNOWN", "LAUNCH", "LAUNCH_GROUP", "RESERVE", "UNRESERVE", "CREATE", "DESTROY",
    "GROW_VOLUME", "SHRINK_VOLUME", "CREATE_DISK", "DESTROY_DISK",
]  # fmt: skip


class Operation(Message, frozen=True, kw_only=True):
    """One operation on accepted offers. `type` names the field that is set."""

    type: OperationType | None = None
    id: Id | None = None
    launch: LaunchOperation | None = None
    launch_group: LaunchGroupOperation | None = None
    reserve: ReserveOperation | None = None
    unreserve: UnreserveOperation | None = None
    create: VolumesOperation | None = None
    destroy: VolumesOperation | None = None
    grow_volume: GrowVolumeOperation | None = None
    shrink_volume: ShrinkVolumeOperation | None = None
    create_disk: CreateDiskOperation | None = None
    destroy_disk: DestroyDiskOperation | None = None

    @property
    def task_infos(self) -> list[TaskInfo]:
        """The tasks that the operation launches."""
        if self.type == "LAUNCH" and self.launch is not None:
            return self.launch.task_infos
        if self.type == "LAUNCH_GROUP" and self.launch_group is not None:
            return self.launch_group.task_group.tasks
        return []


class Accept(Message, frozen=True, kw_only=True):
    """ACCEPT offers of one agent. `filters` applies to the resources that no operation uses."""

    offer_ids: list[Id] = []
    operations: list[Operation] = []
    filters: Filters = Filters()


class Decline(Message, frozen=True, kw_only=True):
    """DECLINE offers. `filters` says for how long their resources are refused."""

    offer_ids: list[Id] = []
    filters: Filters = Filters()


class Roles(Message, frozen=True, kw_only=True):
    """The body of REVIVE and SUPPRESS. No roles means all of the framework's."""

    roles: list[str] = []


class Kill(Message, frozen=True, kw_only=True):
    """KILL a task. `kill_policy` overrides the task's own."""

    task_id: Id
    agent_id: Id | None = None
    kill_policy: KillPolicy | None = None


class Acknowledge(Message, frozen=True, kw_only=True):
    """ACKNOWLEDGE the status update that carried this uuid (16 bytes)."""

    agent_id: Id
    task_id: Id
    uuid: bytes


class ReconcileTask(Message, frozen=True, kw_only=True):
    """A task whose state is asked for."""

    task_id: Id
    agent_id: Id | None = None


class Reconcile(Message, frozen=True, kw_only=True):
    """RECONCILE. No tasks means implicit: the latest state of each task that the master knows."""

    tasks: list[ReconcileTask] = []


class Shutdown(Message, frozen=True, kw_only=True):
    """SHUTDOWN an executor."""

    executor_id: Id
    agent_id: Id


class UpdateFramework(Message, frozen=True, kw_only=True):
    """UPDATE_FRAMEWORK: replace the info that the framework subscribed with."""

    framework_info: FrameworkInfo
    suppressed_roles: list[str] = []
    offer_constraints: OfferConstraints | None = None


class InverseOffersAnswer(Message, frozen=True, kw_only=True):
    """ACCEPT_INVERSE_OFFERS or DECLINE_INVERSE_OFFERS: the answer to planned outages."""

    inverse_offer_ids: list[Id] = []
    filters: Filters | None = None


class AcknowledgeOperationStatus(Message, frozen=True, kw_only=True):
    agent_id: Id | None = None
    resource_provider_id: Id | None = None
    uuid: bytes
    operation_id: Id


class ReconcileOperation(Message, frozen=True, kw_only=True):
    operation_id: Id
    agent_id: Id | None = None
    resource_provider_id: Id | None = None


class ReconcileOperations(Message, frozen=True, kw_only=True):
    operations: list[ReconcileOperation] = []


class ResourceRequest(Message, frozen=True, kw_only=True):
    agent_id: Id | None = None
    resources: list[Resource] = []


class Request(Message, frozen=True, kw_only=True):
    """REQUEST resources. Mesos ignores it."""

    requests: list[ResourceRequest] = []


CallType = Literal[
    "UNKNOWN", "SUBSCRIBE", "TEARDOWN", "ACCEPT", "DECLINE", "ACCEPT_INVERSE_OFFERS",
    "DECLINE_INVERSE_OFFERS", "REVIVE", "KILL", "SHUTDOWN", "ACKNOWLEDGE",
    "ACKNOWLEDGE_OPERATION_STATUS", "RECONCILE", "RECONCILE_OPERATIONS", "MESSAGE", "REQUEST",
    "SUPPRESS", "UPDATE_FRAMEWORK",
]  # fmt: skip

CALL_TYPES: frozenset[str] = frozenset(get_args(CallType))
"""Every call type of the scheduler API."""


class Call(Message, frozen=True, kw_only=True):
    """A call. `type` names the field that is set; it is None for a type that is not known.

    `SchedulerClient` fills in `framework_id`.
    """

    type: CallType | None = None
    framework_id: Id | None = None
    subscribe: Subscribe | None = None
    accept: Accept | None = None
    decline: Decline | None = None
    revive: Roles | None = None
    suppress: Roles | None = None
    kill: Kill | None = None
    shutdown: Shutdown | None = None
    acknowledge: Acknowledge | None = None
    reconcile: Reconcile | None = None
    message: ExecutorMessage | None = None
    request: Request | None = None
    update_framework: UpdateFramework | None = None
    accept_inverse_offers: InverseOffersAnswer | None = None
    decline_inverse_offers: InverseOffersAnswer | None = None
    acknowledge_operation_status: AcknowledgeOperationStatus | None = None
    reconcile_operations: ReconcileOperations | None = None


CALL_TYPES_WITH_BODY = frozenset(
    {
        "SUBSCRIBE", "ACCEPT", "DECLINE", "ACCEPT_INVERSE_OFFERS", "DECLINE_INVERSE_OFFERS", "KILL",
        "SHUTDOWN", "ACKNOWLEDGE", "ACKNOWLEDGE_OPERATION_STATUS", "RECONCILE",
        "RECONCILE_OPERATIONS", "MESSAGE", "REQUEST", "UPDATE_FRAMEWORK",
    }
)  # fmt: skip
"""The call types whose field of the same name (in lower case) is required."""


def launch(offer_ids: Sequence[str], tasks: Iterable[TaskInfo], refuse_s: float = 5.0) -> Call:
    """ACCEPT offers of one agent with one LAUNCH; what is left over is refused for `refuse_s`."""
    operation = Operation(type="LAUNCH", launch=LaunchOperation(task_infos=list(tasks)))
    accept = Accept(
        offer_ids=[Id(value=offer_id) for offer_id in offer_ids],
        operations=[operation],
        filters=Filters(refuse_seconds=refuse_s),
    )
    return Call(type="ACCEPT", accept=accept)


def decline(offer_ids: Iterable[str], refuse_s: float = 5.0) -> Call:
    """DECLINE offers; their resources are not offered again for `refuse_s` seconds."""
    ids = [Id(value=offer_id) for offer_id in offer_ids]
    return Call(
        type="DECLINE", decline=Decline(offer_ids=ids, filters=Filters(refuse_seconds=refuse_s))
    )


def revive() -> Call:
    """REVIVE: remove the framework's filters, and resume offers that were suppressed."""
    return Call(type="REVIVE")


def suppress() -> Call:
    """SUPPRESS: no offers until REVIVE."""
    return Call(type="SUPPRESS")


def kill(task_id: str, agent_id: str | None = None) -> Call:
    """KILL a task, with the grace period of its own kill policy."""
    return Call(
        type="KILL",
        kill=Kill(task_id=Id(value=task_id), agent_id=Id(value=agent_id) if agent_id else None),
    )


def reconcile(tasks: Iterable[tuple[str, str | None]] = ()) -> Call:
    """RECONCILE pairs of task id and agent id (or None); no pair asks for every known task."""
    wanted = [
        ReconcileTask(task_id=Id(value=task), agent_id=Id(value=agent) if agent else None)
        for task, agent in tasks
    ]
    return Call(type="RECONCILE", reconcile=Reconcile(tasks=wanted))


def update_framework(info: FrameworkInfo) -> Call:
    """UPDATE_FRAMEWORK: replace the subscribed info with `info`, which has the framework's id.

    No role stays suppressed.
    """
    return Call(type="UPDATE_FRAMEWORK", update_framework=UpdateFramework(framework_info=info))


def teardown() -> Call:
    """TEARDOWN: kill the framework's tasks and remove it. Its id cannot subscribe again."""
    return Call(type="TEARDOWN")


def acknowledge(status: TaskStatus) -> Call | None:
    """ACKNOWLEDGE an update; None for one without a uuid, which the master generated."""
    if status.uuid is None or status.agent_id is None:
        return None
    body = Acknowledge(agent_id=status.agent_id, task_id=status.task_id, uuid=status.uuid)
    return Call(type="ACKNOWLEDGE", acknowledge=body)


encode_call = msgspec.json.Encoder().encode
decode_event = msgspec.json.Decoder(Event, strict=False).decode
