"""Adoption: Terraform's state rebuilt from the deployment's resources in the account.

A lost, empty or partial state beside living machines is completed: each resource that the stacks
declare is searched by its tags and imported. Nothing in the account is created, changed or removed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from mesaform.common.progress import Report, stage
from mesaform.provision.adoption.account import (
    NOT_IMPORTED,
    Search,
    find_import_id,
    in_search_order,
)
from mesaform.provision.adoption.declared import Declared, read_declared
from mesaform.provision.adoption.importing import (
    Import,
    by_stack,
    import_resources,
    is_harmless,
)
from mesaform.provision.cluster_context import ClusterContext
from mesaform.provision.state_folders import STACKS, stack_dir
from mesaform.provision.terraform_run import Outline, OutlineChange, TerraformRunner, forget_plan
from mesaform.provision.terraform_state import known_addresses


@dataclass(frozen=True, slots=True)
class Findings:
    """What the account holds of the declared resources that the state does not list.

    `known` is how many the state lists, `absent` are those that the account does not hold.
    """

    imports: tuple[Import, ...] = ()
    absent: tuple[Declared, ...] = ()
    known: int = 0


@dataclass(frozen=True, slots=True)
class Remainder:
    """What Terraform would still do after an adoption: a phrase for each change, by stack."""

    stack: str
    changes: tuple[str, ...]


def search_account(place: ClusterContext, deployment_id: str) -> Findings:
    """Search the account for what the synthesized stacks declare. Blocks; changes nothing.

    Raises:
        CloudError: AWS did not answer.
        OSError: the stacks are not synthesized.

    """
    imports: list[Import] = []
    absent: list[Declared] = []
    known_count = 0
    for stack, declared in read_declared(place.cluster_dir).items():
        known = known_addresses(place.cluster_dir, stack)
        known_count += len(known)
        search = Search(place.spec.region, deployment_id)
        importable = (resource for resource in declared if resource.kind not in NOT_IMPORTED)
        for resource in in_search_order(importable):
            import_id = find_import_id(resource, search)
            search.ids[resource.address] = import_id
            if resource.address in known:
                continue
            if import_id:
                imports.append(Import(resource, import_id))
            else:
                absent.append(resource)
    return Findings(tuple(imports), tuple(absent), known_count)


async def adopt(
    place: ClusterContext, imports: Collection[Import], runner: TerraformRunner, report: Report
) -> None:
    """Import what a search found, the network before the other stacks, which read its outputs.

    Idempotent; may be interrupted and repeated.

    Raises:
        CloudError: Terraform cannot import something.

    """
    stacks = by_stack(imports)

    async def import_stack(name: str) -> None:
        if wanted := stacks.get(name, ()):
            await import_resources(place.cluster_dir, name, wanted, runner)

    with stage(report, "Adopt resources into Terraform's state") as under_way:
        under_way.advance(", ".join(f"{name}: {len(stacks[name])}" for name in stacks))
        await import_stack("network")
        await asyncio.gather(*(import_stack(name) for name in STACKS if name != "network"))
        under_way.outcome = f"{len(imports)} resources of {len(stacks)} stacks"


async def settle(
    place: ClusterContext, runner: TerraformRunner, report: Report, *, may_update: bool
) -> tuple[Remainder, ...]:
    """Settle what Terraform cannot read from the account, and say what differs otherwise.

    Some settings exist in the configuration only, such as `user_data_replace_on_change`. They are
    applied with `may_update` if that is all that differs in a stack; what launch templates launch
    is left alone. A stack whose plan was applied is as the plan says, and is not planned again.
    Returns the stacks in which something differs; `mesaform up` would change that.
    """
    with stage(report, "Compare the state with the stacks") as under_way:
        settled = await asyncio.gather(
            *(
                _settle_stack(stack_dir(place.cluster_dir, name), name, runner, may_update)
                for name in STACKS
            )
        )
        remainders = tuple(remainder for remainder in settled if remainder.changes)
        under_way.outcome = (
            f"{', '.join(item.stack for item in remainders)} differ" if remainders else "no changes"
        )
    return remainders


async def _settle_stack(
    folder: Path, name: str, runner: TerraformRunner, may_update: bool
) -> Remainder:
    try:
        outline = await runner.outline(folder)
        if outline.changes is None:
            return Remainder(name, (f"it cannot be planned: {outline.error}",))
        if not may_update or not outline.changes or not _is_settling(outline.changes):
            return Remainder(name, _phrases(outline))
        if not await is_harmless(folder, outline.changes, runner):
            return Remainder(name, _phrases(outline))
        ended = await runner.apply(folder)
        failure = (f"it cannot be settled: {ended.first_error}",) if ended.code else ()
        return Remainder(name, failure)
    finally:
        forget_plan(folder)


def _is_settling(changes: Iterable[OutlineChange]) -> bool:
    """Whether a plan only updates, or repeats what Terraform cannot import."""
    return all(
        change.action == "update" or (change.action == "create" and change.kind in NOT_IMPORTED)
        for change in changes
    )


def _phrases(outline: Outline) -> tuple[str, ...]:
    return tuple(f"{change.action} {change.address}" for change in outline.changes or ())


async def find_and_search(place: ClusterContext, deployment_id: str, report: Report) -> Findings:
    """`search_account` with progress."""
    with stage(report, "Search the account by tags") as under_way:
        findings = await asyncio.to_thread(search_account, place, deployment_id)
        under_way.outcome = (
            f"{len(findings.imports)} to adopt, {findings.known} known,"
            f" {len(findings.absent)} absent"
        )
    return findings
