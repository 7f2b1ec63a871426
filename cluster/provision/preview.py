"""Preview of a deployment: which running machines Terraform would replace, destroy or stop.

Runs `terraform plan` for each synthesized stack, side by side, and reads the plans that change
something (`terraform show -json`). The plan changes nothing. Depends on a synthesis that is newer
than the cluster file; the caller holds the lock of Terraform.
"""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mesaform.common.json_types import JsonObject, as_list, as_object
from mesaform.common.progress import Report, stage
from mesaform.provision import environment, terraform
from mesaform.provision.cluster_context import ClusterContext
from mesaform.provision.image import BootImage
from mesaform.provision.stack_order import creation_order
from mesaform.provision.state_folders import STACKS, stack_dir
from mesaform.provision.terraform_state import managed_resources
from mesaform.topology.names import Tag

Action = Literal["replace", "destroy", "stop and start"]
PLAN_FILE = "preview.tfplan"
GROUND = frozenset({"aws_vpc", "aws_subnet"})
"""Resources below every machine: whoever replaces one replaces the machines."""
NO_CHANGES: JsonObject = {}
EXIT_NO_CHANGES, EXIT_CHANGES = 0, 2
"""Exit codes of `terraform plan -detailed-exitcode`."""


@dataclass(frozen=True, slots=True)
class MachineChange:
    """A running machine that the deployment would take out of service. `why` names attributes."""

    instance_id: str
    name: str
    role: str
    action: Action
    why: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Preview:
    """What a deployment would do to machines.

    `unplanned` are stacks for which Terraform could not plan before others are deployed: their
    machines may be replaced. `unchanged` are stacks that are as they should be, like all that they
    depend on. `is_synthesized` says that the stacks need not be synthesized again.
    """

    changes: tuple[MachineChange, ...] = ()
    unplanned: tuple[str, ...] = ()
    unchanged: frozenset[str] = frozenset()
    is_synthesized: bool = False


async def preview_changes(place: ClusterContext, image: BootImage, report: Report) -> Preview:
    """Plan the synthesized stacks.

    Raises:
        MissingPrerequisite: terraform is missing.

    """
    variables = await asyncio.to_thread(environment.prepare_environment, place, image)
    with stage(report, "Plan the changes") as under_way:
        planned = await _plan_all(place.cluster_dir, variables)
        known = [plan for plan in planned.values() if plan is not None]
        changes = tuple(read_changes(known))
        if any(map(replaces_ground, known)):
            changes = _every_machine(place)
        unplanned = tuple(stack for stack, plan in planned.items() if plan is None)
        under_way.outcome = _summary(changes, unplanned)
    unchanged = _unchanged(place.cluster_dir, planned)
    return Preview(changes, unplanned, unchanged, is_synthesized=True)


async def _plan_all(folder: Path, variables: Mapping[str, str]) -> dict[str, JsonObject | None]:
    """The plan of each stack; None where Terraform cannot plan it yet."""
    folders = [stack_dir(folder, stack) for stack in STACKS]
    plans = await asyncio.gather(*(_plan(stack, variables) for stack in folders))
    return dict(zip(STACKS, plans, strict=True))


def _unchanged(folder: Path, planned: Mapping[str, JsonObject | None]) -> frozenset[str]:
    """The stacks that are as they should be, like all that they depend on."""
    same = {stack for stack, plan in planned.items() if plan == NO_CHANGES}
    order = creation_order(folder, STACKS)
    return frozenset(stack for stack in same if order[stack] <= same)


def read_changes(plans: Iterable[JsonObject]) -> Iterator[MachineChange]:
    """Machines that plans (`terraform show -json`) replace, destroy, or stop and start."""
    for change in _resource_changes(plans, {"aws_instance"}):
        before, after = as_object(change.get("before")), as_object(change.get("after"))
        if (action := _action(change, before, after)) is None:
            continue
        tags = as_object(before.get("tags_all") or before.get("tags"))
        yield MachineChange(
            str(before.get("id")),
            str(tags.get(Tag.NAME) or before.get("id")),
            str(tags.get(Tag.ROLE, "")),
            action,
            tuple(_changed_attributes(change, before, after)) if action != "destroy" else (),
        )


def replaces_ground(plan: JsonObject) -> bool:
    """Whether a plan deletes or replaces the VPC or a subnet."""
    return any(
        "delete" in as_list(change.get("actions")) for change in _resource_changes([plan], GROUND)
    )


def _resource_changes(plans: Iterable[JsonObject], kinds: Collection[str]) -> Iterator[JsonObject]:
    for plan in plans:
        for resource in map(as_object, as_list(plan.get("resource_changes"))):
            if str(resource.get("type")) in kinds:
                yield as_object(resource.get("change"))


def _action(change: JsonObject, before: JsonObject, after: JsonObject) -> Action | None:
    actions = as_list(change.get("actions"))
    if "delete" in actions:
        return "replace" if "create" in actions else "destroy"
    if "update" in actions and before.get("instance_type") != after.get("instance_type"):
        return "stop and start"
    return None


def _changed_attributes(change: JsonObject, before: JsonObject, after: JsonObject) -> Iterator[str]:
    """The attributes that force the change; those that differ where Terraform names none."""
    paths = [".".join(map(str, as_list(path))) for path in as_list(change.get("replace_paths"))]
    if paths:
        yield from paths
        return
    if before.get("instance_type") != after.get("instance_type"):
        yield "instance_type"


def _every_machine(place: ClusterContext) -> tuple[MachineChange, ...]:
    machines = [
        resource
        for resource in managed_resources(place.cluster_dir)
        if resource.kind == "aws_instance" and resource.id
    ]
    tags = [as_object(machine.attributes.get("tags")) for machine in machines]
    return tuple(
        MachineChange(
            machine.id,
            str(tag.get(Tag.NAME) or machine.id),
            str(tag.get(Tag.ROLE, "")),
            "replace",
            ("network",),
        )
        for machine, tag in zip(machines, tags, strict=True)
    )


def _summary(changes: tuple[MachineChange, ...], unplanned: tuple[str, ...]) -> str:
    parts = [f"{len(changes)} machines change" if changes else "no machine is replaced"]
    if unplanned:
        parts.append(f"not known yet for {', '.join(unplanned)}")
    return "; ".join(parts)


async def _plan(folder: Path, variables: Mapping[str, str]) -> JsonObject | None:
    """The plan of one stack; None where Terraform cannot plan it yet."""
    program = variables[terraform.BINARY_NAME]
    if not (folder / ".terraform").exists():
        code, _ = await _run(folder, variables, program, "init", "-input=false", "-no-color")
        if code:
            return None
    options = ("-input=false", "-no-color", "-detailed-exitcode", f"-out={PLAN_FILE}")
    try:
        code, _ = await _run(folder, variables, program, "plan", *options)
        if code == EXIT_NO_CHANGES:
            return NO_CHANGES
        if code != EXIT_CHANGES:
            return None
        code, text = await _run(folder, variables, program, "show", "-json", PLAN_FILE)
        return as_object(json.loads(text)) if code == 0 else None
    finally:
        (folder / PLAN_FILE).unlink(missing_ok=True)  # it holds attributes of the state


async def _run(folder: Path, variables: Mapping[str, str], *command: str) -> tuple[int, bytes]:
    """Run a program to its end; its exit code and standard output. Cancelling interrupts it."""
    child = await asyncio.create_subprocess_exec(
        *command,
        cwd=folder,
        env=dict(variables),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        output, _ = await child.communicate()
    except BaseException:
        with suppress(ProcessLookupError):
            child.send_signal(signal.SIGINT)
        await asyncio.shield(child.wait())
        raise
    return child.returncode or 0, output
