"""Reading of Terraform's plans: which machines change and why, and how many resources. Pure.

Depends on the format of `terraform show -json` (`resource_changes`) and of a synthesized stack.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from mesaform.common.json_types import JsonObject, as_list, as_object
from mesaform.topology.names import Tag

Action = Literal["add", "replace", "destroy", "stop and start"]
GROUND = frozenset({"aws_vpc", "aws_subnet"})
"""Resources below every machine: whoever replaces one replaces the machines."""
KEPT = frozenset({"aws_ebs_volume"})
"""Resources that outlive machines: no change of a machine may delete one."""
MACHINE = "aws_instance"
TEMPLATE = "aws_launch_template"
LABELS = frozenset({"tags", "tags_all", "tag_specifications", "description", "latest_version"})
"""Attributes of a launch template in which versions may differ and launch equal machines."""


@dataclass(frozen=True, slots=True)
class MachineChange:
    """A machine that a deployment would add, or take out of service. `why` names attributes.

    `instance_id` is empty for a machine that is added. `address` is Terraform's within the
    machine's stack. `type_before` and `type_after` are instance types, empty where no machine is.
    """

    instance_id: str
    name: str
    role: str
    action: Action
    why: tuple[str, ...] = ()
    address: str = ""
    pool: str = ""
    type_before: str = ""
    type_after: str = ""

    @property
    def is_disruptive(self) -> bool:
        """Whether a running machine goes out of service, for good or for a while."""
        return self.action != "add"


@dataclass(frozen=True, slots=True)
class ResourceCounts:
    """Numbers of resources of every kind that change, machines included."""

    added: int = 0
    changed: int = 0
    replaced: int = 0
    destroyed: int = 0

    def __bool__(self) -> bool:
        return bool(self.added or self.changed or self.replaced or self.destroyed)

    def __add__(self, other: ResourceCounts) -> ResourceCounts:
        return ResourceCounts(
            self.added + other.added,
            self.changed + other.changed,
            self.replaced + other.replaced,
            self.destroyed + other.destroyed,
        )


def changes_of(plans: Iterable[JsonObject]) -> Iterator[MachineChange]:
    """Machines that plans add, replace, destroy, or stop and start."""
    for address, change in _resource_changes(plans, {MACHINE}):
        before, after = as_object(change.get("before")), as_object(change.get("after"))
        if (action := _action(change, before, after)) is not None:
            yield _machine_change(address, change, action)


def _machine_change(address: str, change: JsonObject, action: Action) -> MachineChange:
    before, after = as_object(change.get("before")), as_object(change.get("after"))
    tags = _tags(before or after)
    instance_id = _text(before, "id")
    has_reason = action in {"replace", "stop and start"}
    return MachineChange(
        instance_id,
        str(tags.get(Tag.NAME) or instance_id or address),
        str(tags.get(Tag.ROLE, "")),
        action,
        tuple(_changed_attributes(change, before, after)) if has_reason else (),
        address,
        str(tags.get(Tag.POOL, "")),
        _text(before, "instance_type"),
        _text(after, "instance_type"),
    )


def _tags(machine: JsonObject) -> JsonObject:
    return as_object(machine.get("tags_all") or machine.get("tags"))


def _text(attributes: JsonObject, name: str) -> str:
    return str(attributes.get(name) or "")


def declared_machines(stack: JsonObject) -> Iterator[MachineChange]:
    """The machines that a synthesized stack declares, each as one that is added."""
    resources = as_object(as_object(stack.get("resource")).get(MACHINE))
    for name, declared in resources.items():
        change: JsonObject = {"before": None, "after": as_object(declared)}
        yield _machine_change(f"{MACHINE}.{name}", change, "add")


def count_declared(stack: JsonObject) -> ResourceCounts:
    """How many resources a synthesized stack declares, each as one that is added."""
    kinds = as_object(stack.get("resource")).values()
    return ResourceCounts(added=sum(len(as_object(resources)) for resources in kinds))


def count_changes(plan: JsonObject) -> ResourceCounts:
    """How many resources a plan adds, changes, replaces and destroys."""
    counts = Counter(
        _kind_of_change(as_list(change.get("actions")))
        for _, change in _resource_changes([plan], None)
    )
    return ResourceCounts(counts["add"], counts["change"], counts["replace"], counts["destroy"])


def _kind_of_change(actions: Sequence[object]) -> str:
    if "delete" in actions:
        return "replace" if "create" in actions else "destroy"
    return "add" if "create" in actions else "change" if "update" in actions else ""


def deletions_of(plan: JsonObject, kinds: Collection[str]) -> tuple[str, ...]:
    """Addresses of resources of these kinds that a plan deletes or replaces."""
    return tuple(
        address
        for address, change in _resource_changes([plan], kinds)
        if "delete" in as_list(change.get("actions"))
    )


def changed_templates(plans: Iterable[JsonObject]) -> Iterator[str]:
    """Names of launch templates from which other machines would be launched after the plans."""
    for _, change in _resource_changes(plans, {TEMPLATE}):
        before, after = as_object(change.get("before")), as_object(change.get("after"))
        names = after.keys() - LABELS
        if before and any(before.get(name) != after[name] for name in names):
            yield _text(before, "name")


def replaces_ground(plan: JsonObject) -> bool:
    """Whether a plan deletes or replaces the VPC or a subnet."""
    return bool(deletions_of(plan, GROUND))


def _resource_changes(
    plans: Iterable[JsonObject], kinds: Collection[str] | None
) -> Iterator[tuple[str, JsonObject]]:
    """Address and change of each managed resource of these kinds; None stands for every kind."""
    for plan in plans:
        for resource in map(as_object, as_list(plan.get("resource_changes"))):
            is_wanted = kinds is None or str(resource.get("type")) in kinds
            if is_wanted and resource.get("mode") != "data":
                yield str(resource.get("address", "")), as_object(resource.get("change"))


def _action(change: JsonObject, before: JsonObject, after: JsonObject) -> Action | None:
    kind = _kind_of_change(as_list(change.get("actions")))
    if kind == "replace":
        return "replace"
    if kind == "destroy":
        return "destroy"
    if kind == "add":
        return "add"
    is_resized = before.get("instance_type") != after.get("instance_type")
    return "stop and start" if kind == "change" and is_resized else None


def _changed_attributes(change: JsonObject, before: JsonObject, after: JsonObject) -> Iterator[str]:
    """The attributes that force the change; those that differ where Terraform names none."""
    paths = [".".join(map(str, as_list(path))) for path in as_list(change.get("replace_paths"))]
    if paths:
        yield from paths
        return
    if before.get("instance_type") != after.get("instance_type"):
        yield "instance_type"
