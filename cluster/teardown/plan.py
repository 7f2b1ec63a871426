"""Plan of a teardown: ordered steps, and the cost that they stop, from an inventory. Pure.

Every resource of the cluster is removed by exactly one step or kept by name. Terraform's resources
go with their stack. Machines that it does not know are terminated before. The sweep removes the
rest, such as resources whose state was lost.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from mesaform.aws.resources.owned import KEPT_UNLESS_ASKED, OwnedResource, is_ours
from mesaform.aws.resources.registry import in_deletion_order
from mesaform.common.errors import NotOwned
from mesaform.topology.names import Tag

StepKind = Literal["freeze", "deactivate", "drain", "terminate", "destroy", "sweep"]
STEP_ORDER: tuple[StepKind, ...] = (
    "freeze",
    "deactivate",
    "drain",
    "terminate",
    "destroy",
    "sweep",
)
DESTROY_ORDER = ("agents", "masters", "notices", "network")
Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class SurveyedMachine:
    """A machine of the cluster.

    `usd_per_hour` is None where no price is known. `agent_id` and `tasks` come from the engine and
    are empty if it did not answer.
    """

    instance_id: str
    tags: Mapping[str, str]
    instance_type: str
    zone: str
    capacity: str
    role: str
    pool: str
    managed_by: str
    state: str
    launched_at: float
    usd_per_hour: float | None
    agent_id: str = ""
    tasks: int = 0

    @property
    def key(self) -> Key:
        return "instance", self.instance_id


@dataclass(frozen=True, slots=True)
class Inventory:
    """What the account shows, and what Terraform's state lists.

    `stacks` maps each stack that has state to the ids in it; `resources` are all but machines.
    `deployment_id` is this folder's; empty where the folder has none.
    """

    cluster: str
    machines: tuple[SurveyedMachine, ...] = ()
    resources: tuple[OwnedResource, ...] = ()
    stacks: Mapping[str, frozenset[str]] = field(default_factory=dict)
    has_leader: bool = False
    autoscaler_alive: bool = False
    deployment_id: str = ""
    standing_usd_per_hour: float = 0.0

    @property
    def is_empty(self) -> bool:
        """Whether nothing is left that a plan without images would remove."""
        return (
            all(self.is_foreign(machine.tags) for machine in self.machines)
            and not self.stacks
            and all(
                resource.kind in KEPT_UNLESS_ASKED or self.is_foreign(resource.tags)
                for resource in self.resources
            )
        )

    def is_foreign(self, tags: Mapping[str, str]) -> bool:
        """Whether a resource belongs to another deployment of the same name, which is kept."""
        return is_foreign(tags, self.deployment_id)


def is_foreign(tags: Mapping[str, str], deployment_id: str) -> bool:
    """Whether tags are of another deployment than this one.

    Resources without an id are older than ids, and so is a deployment without one: it owns no
    resource that has an id.
    """
    return tags.get(Tag.DEPLOYMENT, deployment_id) != deployment_id


@dataclass(frozen=True, slots=True)
class TeardownRequest:
    """What a person asked for: everything, or only the agents; images as well, or not."""

    agents_only: bool = False
    images: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """A step. `removes` is gone after it; `touches` are the agents (instance ids), in order."""

    kind: StepKind
    what: str
    why: str
    stack: str = ""
    removes: tuple[Key, ...] = ()
    touches: tuple[str, ...] = ()
    usd_per_hour: float = 0.0


@dataclass(frozen=True, slots=True)
class Plan:
    """Steps in order.

    `usd_per_hour` stops when all are done; `kept` stays and costs `kept_usd_per_hour`.
    """

    cluster: str
    request: TeardownRequest
    steps: tuple[Step, ...]
    kept: tuple[OwnedResource, ...]
    usd_per_hour: float
    kept_usd_per_hour: float
    unpriced: tuple[str, ...] = ()

    @property
    def stacks(self) -> tuple[str, ...]:
        """The stacks to destroy, in order."""
        return tuple(step.stack for step in self.steps if step.kind == "destroy")

    def removes(self) -> frozenset[Key]:
        return frozenset(key for step in self.steps for key in step.removes)


def plan(inventory: Inventory, request: TeardownRequest) -> Plan:
    """The steps that remove an inventory.

    Raises:
        NotOwned: the inventory holds a resource without the cluster's tag; nothing may be concluded
            from such an inventory.

    """
    _refuse_strangers(inventory)
    places = _place(inventory, request)
    price = _prices(inventory)
    agents = [
        machine
        for machine in inventory.machines
        if machine.key in places and machine.role == "agent"
    ]
    kept = tuple(
        in_deletion_order(
            resource for resource in _everything(inventory) if resource.key not in places
        )
    )
    return Plan(
        cluster=inventory.cluster,
        request=request,
        steps=(
            *_preparations(inventory, agents),
            *_removals(inventory, request, places, price),
        ),
        kept=kept,
        usd_per_hour=round(_sum(price, places) + _standing(inventory, request), 6),
        kept_usd_per_hour=_sum(price, (resource.key for resource in kept))
        + (inventory.standing_usd_per_hour if request.agents_only else 0.0),
        unpriced=_unpriced_types(inventory),
    )


def _standing(inventory: Inventory, request: TeardownRequest) -> float:
    """What the cluster costs besides its machines, which stops when the masters go."""
    return 0.0 if request.agents_only else inventory.standing_usd_per_hour


def _unpriced_types(inventory: Inventory) -> tuple[str, ...]:
    types = {
        machine.instance_type for machine in inventory.machines if machine.usd_per_hour is None
    }
    return tuple(sorted(types))


def _refuse_strangers(inventory: Inventory) -> None:
    strangers = [
        resource.id
        for resource in _everything(inventory)
        if not is_ours(resource.tags, inventory.cluster)
    ]
    if strangers:
        raise NotOwned(
            f"{', '.join(strangers)} without the tag of {inventory.cluster}",
            where="teardown",
            fix="nothing was removed: this is a bug",
        )


def _everything(inventory: Inventory) -> list[OwnedResource]:
    return [as_owned(machine) for machine in inventory.machines] + list(inventory.resources)


def as_owned(machine: SurveyedMachine) -> OwnedResource:
    """A machine as one resource among others."""
    detail = f"{machine.instance_type} {machine.zone} {machine.state}"
    return OwnedResource(
        "instance", machine.instance_id, machine.tags, detail, machine.usd_per_hour
    )


def _prices(inventory: Inventory) -> dict[Key, float]:
    return {resource.key: resource.usd_per_hour or 0.0 for resource in _everything(inventory)}


def _sum(price: Mapping[Key, float], keys: Iterable[Key]) -> float:
    return round(sum(price[key] for key in keys), 6)


def _place(inventory: Inventory, request: TeardownRequest) -> dict[Key, str]:
    """The step that removes each resource: "terminate", "sweep" or a stack's name.

    What is kept is absent.
    """
    stack_of = {
        identity: stack
        for stack in _stacks(inventory, request)
        for identity in inventory.stacks[stack]
    }
    machine_places = {
        machine.key: _machine_place(machine, stack_of)
        for machine in _removable_machines(inventory, request)
    }
    resource_places = {
        resource.key: _resource_place(resource, machine_places, stack_of)
        for resource in _removable_resources(inventory, request)
    }
    if request.agents_only:
        resource_places = _of_agents(inventory.resources, resource_places, machine_places)
    return machine_places | resource_places


def _of_agents(
    resources: Iterable[OwnedResource],
    places: Mapping[Key, str],
    machine_places: Mapping[Key, str],
) -> dict[Key, str]:
    """The places of resources that belong to the agents' stack or go with an agent's machine."""
    return {
        resource.key: places[resource.key]
        for resource in resources
        if resource.key in places
        and (
            places[resource.key] == "agents"
            or ("instance", resource.deleted_with_instance) in machine_places
        )
    }


def _removable_machines(
    inventory: Inventory, request: TeardownRequest
) -> Iterator[SurveyedMachine]:
    for machine in inventory.machines:
        is_requested = machine.role == "agent" or not request.agents_only
        if is_requested and not inventory.is_foreign(machine.tags):
            yield machine


def _removable_resources(inventory: Inventory, request: TeardownRequest) -> Iterator[OwnedResource]:
    for resource in inventory.resources:
        is_requested = resource.kind not in KEPT_UNLESS_ASKED or request.images
        if is_requested and not inventory.is_foreign(resource.tags):
            yield resource


def _machine_place(machine: SurveyedMachine, stack_of: Mapping[str, str]) -> str:
    outside_terraform = "sweep" if machine.managed_by == "terraform" else "terminate"
    return stack_of.get(machine.instance_id, outside_terraform)


def _resource_place(
    resource: OwnedResource, machine_places: Mapping[Key, str], stack_of: Mapping[str, str]
) -> str:
    """The resource's own stack, or the step of the machine with which it is deleted."""
    machine = ("instance", resource.deleted_with_instance)
    return machine_places.get(machine) or stack_of.get(resource.id, "sweep")


def _preparations(inventory: Inventory, agents: Sequence[SurveyedMachine]) -> list[Step]:
    """Steps before a removal: no purchase, no new task, and running tasks get their grace."""
    steps = []
    if inventory.autoscaler_alive:
        steps.append(
            Step("freeze", "freeze the autoscaler", "it must not buy what is being removed")
        )
    if inventory.has_leader:
        steps += _quiescence([machine for machine in agents if machine.agent_id])
    return steps


def _quiescence(agents: Sequence[SurveyedMachine]) -> Iterator[Step]:
    if agents:
        yield _deactivation(agents)
    if busy := drain_order(machine for machine in agents if machine.tasks):
        yield _drain(busy)


def _deactivation(agents: Sequence[SurveyedMachine]) -> Step:
    return Step(
        "deactivate",
        f"deactivate {_counted(len(agents), 'agent')}",
        "no new task may start",
        touches=tuple(machine.instance_id for machine in agents),
    )


def _drain(agents: Sequence[SurveyedMachine]) -> Step:
    tasks = sum(machine.tasks for machine in agents)
    return Step(
        "drain",
        f"drain {_counted(len(agents), 'agent')} with {_counted(tasks, 'task')}",
        "fewest tasks and highest price first, so that cost stops early",
        touches=tuple(machine.instance_id for machine in agents),
    )


def _counted(count: int, thing: str) -> str:
    return f"{count} {thing}{'' if count == 1 else 's'}"


def drain_order(machines: Iterable[SurveyedMachine]) -> list[SurveyedMachine]:
    """Fewest tasks first, among equals the highest price."""
    return sorted(
        machines,
        key=lambda machine: (machine.tasks, -(machine.usd_per_hour or 0.0), machine.instance_id),
    )


def _removals(
    inventory: Inventory,
    request: TeardownRequest,
    places: Mapping[Key, str],
    price: Mapping[Key, float],
) -> Iterator[Step]:
    resources = in_deletion_order(_everything(inventory))

    def keys_at(place: str) -> tuple[Key, ...]:
        return tuple(resource.key for resource in resources if places.get(resource.key) == place)

    if terminated := keys_at("terminate"):
        machines = sum(kind == "instance" for kind, _ in terminated)
        yield Step(
            "terminate",
            f"terminate {_counted(machines, 'machine')}",
            "Terraform does not know them",
            removes=terminated,
            usd_per_hour=_sum(price, terminated),
        )
    for stack in _stacks(inventory, request):
        keys = keys_at(stack)
        yield Step(
            "destroy",
            f"destroy the stack {stack}",
            f"by Terraform, {len(inventory.stacks[stack])} resources in its state",
            stack,
            keys,
            usd_per_hour=_sum(price, keys),
        )
    swept = keys_at("sweep")
    yield Step(
        "sweep",
        f"sweep {len(swept)} more by tag",
        "resources that no state lists; then list until nothing is left",
        removes=swept,
        usd_per_hour=_sum(price, swept),
    )


def _stacks(inventory: Inventory, request: TeardownRequest) -> list[str]:
    """The stacks to destroy, in order; names that this program does not know go last."""
    selected = [stack for stack in inventory.stacks if stack == "agents" or not request.agents_only]
    known = {stack: number for number, stack in enumerate(DESTROY_ORDER)}
    return sorted(selected, key=lambda stack: (known.get(stack, len(known)), stack))
