"""Import of found resources into Terraform's state, without any replacement of resources.

Terraform runs in a folder of its own for each stack: a copy of the stack's configuration, and an
`import` block for each resource that was found. In the copy every resource ignores all differences,
so that the plan has imports only and changes nothing in the account. A copy is used because a
killed run must leave nothing in the folders from which cdktf deploys. The state and
its lock are those of the stack.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mesaform.common.errors import CloudError
from mesaform.common.files import write_atomically
from mesaform.common.json_types import JsonObject, as_list, as_object
from mesaform.provision.adoption.declared import Declared
from mesaform.provision.machine_changes import changes_of
from mesaform.provision.state_folders import CONFIGURATION_FILE, adoption_dir, stack_dir
from mesaform.provision.terraform_run import OutlineChange, TerraformRunner, forget_plan

IMPORTS_FILE = "imports.tf"
PROVIDER_FILES = (".terraform", ".terraform.lock.hcl")
EXAMINED = frozenset({"aws_instance", "aws_launch_template"})
LAUNCHED = ("image_id", "user_data")
NOT_CREATED = frozenset({"aws_instance", "aws_vpc", "aws_subnet", "aws_ebs_volume"})
"""Kinds that an adoption never creates, not even below a resource that it imports."""


@dataclass(frozen=True, slots=True)
class Import:
    """A resource of the account that a stack declares, and the id with which it is imported."""

    declared: Declared
    import_id: str


async def import_resources(
    folder: Path, stack: str, imports: Sequence[Import], runner: TerraformRunner
) -> None:
    """Import resources into the state of one stack. Idempotent: known ones are left out.

    Args:
        folder: the cluster's state folder, with the synthesized stack.
        stack: the stack.
        imports: what was found of the stack.
        runner: runs Terraform.

    Raises:
        CloudError: Terraform cannot import them, or it would do more than to import.

    """
    await runner.initialize(stack_dir(folder, stack))
    targets = [f"-target={entry.declared.address}" for entry in imports]
    place = prepare_folder(folder, stack, imports)
    try:
        outline = await runner.outline(place, *targets)
        if outline.changes is None:
            raise _failed(stack, outline.error)
        if excess := tuple(find_excess(outline.changes)):
            raise _failed(stack, f"it would also {', '.join(excess)}")
        ended = await runner.apply(place)
        if ended.code:
            raise _failed(stack, ended.first_error)
    finally:
        forget_plan(place)


async def is_harmless(
    place: Path, changes: Sequence[OutlineChange], runner: TerraformRunner
) -> bool:
    """Whether updates take no machine out of service and leave what templates launch as it is."""
    if not any(change.kind in EXAMINED for change in changes):
        return True
    document = (await runner.show(place)).document
    return document is not None and not [
        *(change for change in changes_of([document]) if change.is_disruptive),
        *_changed_templates(document),
    ]


def _changed_templates(plan: JsonObject) -> Iterator[str]:
    """Addresses of launch templates whose image or user data a plan changes."""
    for resource in map(as_object, as_list(plan.get("resource_changes"))):
        change = as_object(resource.get("change"))
        before, after = as_object(change.get("before")), as_object(change.get("after"))
        is_template = resource.get("type") == "aws_launch_template"
        if is_template and any(before.get(key) != after.get(key) for key in LAUNCHED):
            yield str(resource.get("address"))


def _failed(stack: str, error: str) -> CloudError:
    return CloudError(
        f"Terraform cannot adopt the resources: {error}",
        where=stack,
        fix="no resource was changed; run the same command again: it carries on",
    )


def prepare_folder(folder: Path, stack: str, imports: Sequence[Import]) -> Path:
    """Write the folder in which Terraform imports the resources of a stack; returns it."""
    place = adoption_dir(folder) / stack
    shutil.rmtree(place, ignore_errors=True)
    # Plans hold user data, and Terraform writes them for everybody to read.
    place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    place.parent.chmod(0o700)
    place.mkdir()
    origin = stack_dir(folder, stack)
    for name in PROVIDER_FILES:
        if (origin / name).exists():
            (place / name).symlink_to((origin / name).resolve())
    document = as_object(json.loads((origin / CONFIGURATION_FILE).read_text(encoding="utf-8")))
    text = json.dumps(ignore_differences(document))
    write_atomically(place / CONFIGURATION_FILE, text.encode(), mode=0o600)
    write_atomically(place / IMPORTS_FILE, import_blocks(imports).encode(), mode=0o600)
    return place


def ignore_differences(document: JsonObject) -> JsonObject:
    """A stack's configuration in which every resource ignores all differences."""
    resources: JsonObject = {
        kind: {
            name: {**as_object(attributes), "lifecycle": {"ignore_changes": "all"}}
            for name, attributes in as_object(declared).items()
        }
        for kind, declared in as_object(document.get("resource")).items()
    }
    return {**document, "resource": resources}


def import_blocks(imports: Sequence[Import]) -> str:
    """The import blocks in Terraform's language."""
    return "\n".join(
        f"import {{\n  to = {entry.declared.address}\n  id = {json.dumps(entry.import_id)}\n}}"
        for entry in imports
    )


def find_excess(changes: Iterable[OutlineChange]) -> Iterator[str]:
    """What a plan would do besides importing and creating what holds no data."""
    for change in changes:
        is_creation = change.action == "create" and change.kind not in NOT_CREATED
        if change.action != "import" and not is_creation:
            yield f"{change.action} {change.address}"


def by_stack(imports: Collection[Import]) -> Mapping[str, tuple[Import, ...]]:
    """Group imports by their stack."""
    stacks = {entry.declared.stack for entry in imports}
    return {
        stack: tuple(entry for entry in imports if entry.declared.stack == stack)
        for stack in stacks
    }
