"""What goes, in which order, and what it saves: an inventory in, ordered steps out. Pure.

Every resource of the cluster is removed by exactly one step or kept by name. Terraform's things go with their stack, machines that
it does not know are terminated before, and whatever is left (state lost, half made) falls to the sweep.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
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
class Held:
    """A machine of the cluster. `usd_per_hour` is None where no price is known; `agent_id` and `tasks` are the engine's, if it answered."""

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
    machines: tuple[Held, ...] = ()
    resources: tuple[OwnedResource, ...] = ()
    stacks: Mapping[str, frozenset[str]] = field(default_factory=dict)
    has_leader: bool = False
    autoscaler_alive: bool = False
    deployment_id: str = ""

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
        return bool(self.deployment_id) and (
            tags.get(Tag.DEPLOYMENT, self.deployment_id) != self.deployment_id
        )


@dataclass(frozen=True, slots=True)
class Wish:
    """What a person asked for: everything, or only the agents; images as well, or not."""

    agents_only: bool = False
    images: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """One thing to do. `removes` is what is gone after it; `touches` are the agents (instance ids) it speaks to, in order."""

    kind: StepKind
    what: str
    why: str
    stack: str = ""
    removes: tuple[Key, ...] = ()
    touches: tuple[str, ...] = ()
    usd_per_hour: float = 0.0


@dataclass(frozen=True, slots=True)
class Plan:
    """Steps in order. `usd_per_hour` is what stops when all are done; `kept` stays and goes on costing `kept_usd_per_hour`."""

    cluster: str
    wish: Wish
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


def plan(inventory: Inventory, wish: Wish) -> Plan:
    """The steps that take an inventory away.

    Raises:
        NotOwned: the inventory holds something that does not carry the cluster's tag; nothing may be concluded from such an inventory.

    """
    _refuse_strangers(inventory)
    placed = _place(inventory, wish)
    price = _prices(inventory)
    steps = [
        *_quiet(
            inventory,
            [
                machine
                for machine in inventory.machines
                if machine.key in placed and machine.role == "agent"
            ],
        ),
        *_removals(inventory, wish, placed, price),
    ]
    kept = tuple(in_deletion_order(one for one in _everything(inventory) if one.key not in placed))
    return Plan(
        cluster=inventory.cluster,
        wish=wish,
        steps=tuple(steps),
        kept=kept,
        usd_per_hour=_sum(price, placed),
        kept_usd_per_hour=_sum(price, (one.key for one in kept)),
        unpriced=tuple(
            sorted({m.instance_type for m in inventory.machines if m.usd_per_hour is None})
        ),
    )


def _refuse_strangers(inventory: Inventory) -> None:
    strangers = [
        one.id for one in _everything(inventory) if not is_ours(one.tags, inventory.cluster)
    ]
    if strangers:
        raise NotOwned(
            f"{', '.join(strangers)} without the tag of {inventory.cluster}",
            where="teardown",
            fix="nothing was removed: this is a bug",
        )


def _everything(inventory: Inventory) -> list[OwnedResource]:
    return [as_owned(machine) for machine in inventory.machines] + list(inventory.resources)


def as_owned(machine: Held) -> OwnedResource:
    """A machine as one resource among others."""
    detail = f"{machine.instance_type} {machine.zone} {machine.state}"
    return OwnedResource(
        "instance", machine.instance_id, machine.tags, detail, machine.usd_per_hour
    )


def _prices(inventory: Inventory) -> dict[Key, float]:
    return {one.key: one.usd_per_hour or 0.0 for one in _everything(inventory)}


def _sum(price: Mapping[Key, float], keys: Iterable[Key]) -> float:
    return round(sum(price[key] for key in keys), 6)


def _place(inventory: Inventory, wish: Wish) -> dict[Key, str]:
    """Where each resource goes: "terminate", "sweep" or a stack's name. What is kept is absent."""
    stack_of = {
        identity: stack
        for stack in _stacks(inventory, wish)
        for identity in inventory.stacks[stack]
    }
    placed: dict[Key, str] = {}
    for machine in inventory.machines:
        if inventory.is_foreign(machine.tags) or (wish.agents_only and machine.role != "agent"):
            continue
        unknown_to_terraform = "terminate" if machine.managed_by != "terraform" else "sweep"
        placed[machine.key] = stack_of.get(machine.instance_id, unknown_to_terraform)
    for resource in inventory.resources:
        home = _home(resource, placed, stack_of)
        if inventory.is_foreign(resource.tags):
            continue
        if resource.kind in KEPT_UNLESS_ASKED and not wish.images:
            continue
        if (
            wish.agents_only
            and home != "agents"
            and ("instance", resource.deleted_with_instance) not in placed
        ):
            continue
        placed[resource.key] = home
    return placed


def _home(resource: OwnedResource, placed: Mapping[Key, str], stack_of: Mapping[str, str]) -> str:
    """A resource that its machine takes along goes where the machine goes."""
    if ("instance", resource.deleted_with_instance) in placed:
        return placed["instance", resource.deleted_with_instance]
    return stack_of.get(resource.id, "sweep")


def _quiet(inventory: Inventory, agents: Sequence[Held]) -> list[Step]:
    """Before anything is removed: nobody buys, nothing new starts, what runs gets its grace."""
    steps = []
    if inventory.autoscaler_alive:
        steps.append(
            Step("freeze", "freeze the autoscaler", "it must not buy what is being taken away")
        )
    listed = [machine for machine in agents if machine.agent_id]
    if inventory.has_leader and listed:
        ids = tuple(machine.instance_id for machine in listed)
        steps.append(
            Step(
                "deactivate",
                f"deactivate {_counted(len(ids), 'agent')}",
                "no new task may start",
                touches=ids,
            )
        )
    busy = drain_order(machine for machine in listed if machine.tasks)
    if inventory.has_leader and busy:
        tasks = sum(machine.tasks for machine in busy)
        ids = tuple(machine.instance_id for machine in busy)
        why = "emptiest and dearest first, so that money stops early"
        steps.append(
            Step(
                "drain",
                f"drain {_counted(len(ids), 'agent')} with {_counted(tasks, 'task')}",
                why,
                touches=ids,
            )
        )
    return steps


def _counted(count: int, thing: str) -> str:
    return f"{count} {thing}{'' if count == 1 else 's'}"


def drain_order(machines: Iterable[Held]) -> list[Held]:
    """Emptiest first, among equals the dearest."""
    return sorted(
        machines,
        key=lambda machine: (machine.tasks, -(machine.usd_per_hour or 0.0), machine.instance_id),
    )


def _removals(
    inventory: Inventory, wish: Wish, placed: Mapping[Key, str], price: Mapping[Key, float]
) -> list[Step]:
    by_id = in_deletion_order(_everything(inventory))

    def step(kind: StepKind, place: str, what: str, why: str) -> Step:
        keys = tuple(one.key for one in by_id if placed.get(one.key) == place)
        stack = place if kind == "destroy" else ""
        return Step(kind, what.format(len(keys)), why, stack, keys, usd_per_hour=_sum(price, keys))

    steps = []
    if "terminate" in placed.values():
        machines = sum(
            1 for machine in inventory.machines if placed.get(machine.key) == "terminate"
        )
        steps.append(
            step(
                "terminate",
                "terminate",
                f"terminate {_counted(machines, 'machine')}",
                "Terraform does not know them",
            )
        )
    for stack in _stacks(inventory, wish):
        why = f"by Terraform, {len(inventory.stacks[stack])} resources in its state"
        steps.append(step("destroy", stack, f"destroy the stack {stack}", why))
    steps.append(
        step(
            "sweep",
            "sweep",
            "sweep {} more by tag",
            "what no state knows; then list until nothing is left",
        )
    )
    return steps


def _stacks(inventory: Inventory, wish: Wish) -> list[str]:
    """The stacks to destroy, in order; names that this program does not know go last."""
    wanted = [stack for stack in inventory.stacks if stack == "agents" or not wish.agents_only]
    known = {stack: number for number, stack in enumerate(DESTROY_ORDER)}
    return sorted(wanted, key=lambda stack: (known.get(stack, len(known)), stack))
