"""Rolling change of masters: missing ones first, then one at a time, each while all others serve.

Two masters at a time would leave no majority. A new master has the data on its volume, or copies
ZooKeeper's data from the others where there was no volume yet. The procedure keeps no record of its
own: Terraform's state, the account and the plan say what is left to do, so it continues after a
kill at any step. The caller holds the lock of Terraform; the stacks are synthesized.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from mesaform.common.errors import BadInput, CloudError
from mesaform.common.json_types import JsonObject
from mesaform.common.progress import Report, stage
from mesaform.provision.machine_changes import KEPT, MachineChange, changes_of, deletions_of
from mesaform.provision.orphans import mark_unfinished
from mesaform.provision.preview import Preview
from mesaform.provision.stack_targets import targets_of
from mesaform.provision.state_folders import stack_dir
from mesaform.provision.terraform_run import Ended, Planned, forget_plan

WaitUntilServing = Callable[[int], Awaitable[None]]
"""Returns when at least so many masters serve: ZooKeeper has a leader and each of them answers as a
member, the engine has a leader, and its registry can be read."""


class StackRunner(Protocol):
    """Terraform in the folder of one stack; `TerraformRunner` is one."""

    async def plan(self, folder: Path, *options: str) -> Planned:
        """Plan without changing anything; the plan stays in the folder until `apply`."""
        ...

    async def apply(self, folder: Path) -> Ended:
        """Apply the plan that `plan` left."""
        ...


@dataclass(frozen=True, slots=True)
class ChangeRun:
    """One run of changes to machines of a cluster.

    Args:
        cluster_folder: the cluster's state folder.
        runner: runs Terraform.
        report: receives progress.
        began_at: AWS' clock at the start of the run, epoch seconds. It is recorded before the first
            change, so that the next `mesaform up` can tell what an interrupted run launched.

    """

    cluster_folder: Path
    runner: StackRunner
    report: Report
    began_at: float
    _marked: list[bool] = field(default_factory=list)

    def mark(self) -> None:
        """Record that changes begin; the record stays until a run ends well. Idempotent."""
        if not self._marked:
            mark_unfinished(self.cluster_folder, self.began_at)
            self._marked.append(True)

    async def apply(self, stack: str, machines: Sequence[MachineChange]) -> None:
        """Change these machines of a stack, and what depends on each of them, but nothing else.

        Raises:
            CloudError: Terraform failed, or its plan would take another machine or a volume along.

        """
        self.mark()
        folder = stack_dir(self.cluster_folder, stack)
        addresses = [machine.address for machine in machines]
        targets = targets_of(folder, addresses)
        try:
            planned = await self.runner.plan(folder, *(f"-target={item}" for item in targets))
            if planned.document is None:
                raise CloudError(planned.error, where=stack)
            _require_only(planned.document, addresses, stack)
            await self._apply_plan(folder, stack)
        finally:
            forget_plan(folder)

    async def apply_network(self) -> None:
        """Apply the network's changes, which machines may need.

        Raises:
            CloudError: Terraform failed.

        """
        self.mark()
        folder = stack_dir(self.cluster_folder, "network")
        with stage(self.report, "Update network"):
            planned = await self.runner.plan(folder)
            if planned.document is None:
                raise CloudError(planned.error, where="network")
            await self._apply_plan(folder, "network")

    async def _apply_plan(self, folder: Path, where: str) -> None:
        ended = await self.runner.apply(folder)
        if ended.code:
            raise CloudError(ended.first_error, where=where)


def _require_only(plan: JsonObject, addresses: Sequence[str], stack: str) -> None:
    others = {change.address for change in changes_of([plan])} - set(addresses)
    others.update(deletions_of(plan, KEPT))
    if others:
        raise CloudError(
            f"the change of {', '.join(addresses)} would take {', '.join(sorted(others))} along",
            where=stack,
            fix="nothing more was changed",
        )


def is_first_deployment(masters: Sequence[MachineChange], count: int) -> bool:
    """Whether no master exists yet, so that the deployment creates all of them side by side."""
    return sum(master.action == "add" for master in masters) == count


async def change_masters(
    run: ChangeRun, masters: Sequence[MachineChange], count: int, wait: WaitUntilServing
) -> None:
    """Create the missing masters, bring the network up to date, then change the others in turn.

    Args:
        run: where and how.
        masters: every change of masters that Terraform plans.
        count: how many masters the cluster has when it is whole.
        wait: waits until masters serve.

    Raises:
        MesaformError: a master did not come back: the others were not touched.
        CloudError: Terraform failed, or its plan would take another machine along.

    """
    missing = [master for master in masters if master.action == "add"]
    await _add_missing(run, missing, count, wait)
    await wait(count)
    await run.apply_network()
    waiting = [master for master in masters if master.action != "add"]
    for number, master in enumerate(waiting, 1):
        name = f"{master.action.capitalize()} {master.name} ({number} of {len(waiting)})"
        with stage(run.report, name, ", ".join(master.why)):
            await run.apply("masters", [master])
        await wait(count)


async def _add_missing(
    run: ChangeRun, missing: Sequence[MachineChange], count: int, wait: WaitUntilServing
) -> None:
    """Create missing masters: up to a majority, which then must serve, and the others after that.

    New masters may be empty. In a majority that has no master to spare, each master with data
    takes part, so the new ones copy its data; more new ones could be a majority without data.
    """
    if not missing:
        return
    majority = count // 2 + 1
    for_majority = max(0, majority - (count - len(missing)))
    await _add(run, missing[:for_majority])
    await wait(majority)
    await _add(run, missing[for_majority:])


async def _add(run: ChangeRun, missing: Sequence[MachineChange]) -> None:
    if missing:
        with stage(run.report, f"Create {_names(missing)}"):
            await run.apply("masters", missing)


def _names(machines: Iterable[MachineChange]) -> str:
    return ", ".join(machine.name for machine in machines)


def require_same_network(preview: Preview) -> None:
    """Check that the VPC and the subnets below living masters stay.

    Raises:
        BadInput: they would be replaced.

    """
    if preview.replaces_network and any(master.instance_id for master in preview.masters):
        raise BadInput(
            "the VPC or a subnet below the masters would be replaced, and all masters with it:"
            " ZooKeeper's data, with all app definitions, would be lost",
            where="network",
            fix="nothing was changed; restore network and zones in cluster.yaml, or begin anew:"
            " mesaform down, then mesaform up",
        )


def require_volumes(preview: Preview) -> None:
    """Check that the volumes with the masters' data stay.

    Raises:
        BadInput: one would be lost.

    """
    if preview.lost_volumes:
        raise BadInput(
            f"the data of masters would be lost: {'; '.join(preview.lost_volumes)}",
            where="masters.data_volume",
            fix="nothing was changed; restore zones, kms_key_id and size_gib in cluster.yaml, or"
            " begin anew: mesaform down, then mesaform up",
        )


def require_same_count(current: int, count: int) -> None:
    """Check that the number of masters stays: the members of an ensemble are fixed.

    Args:
        current: how many masters the last whole deployment had; 0 where there was none.
        count: how many the cluster file asks for.

    Raises:
        BadInput: they differ.

    """
    if current and current != count:
        raise BadInput(
            f"the cluster has {current} masters, the file asks for {count}; the members of its"
            " ZooKeeper ensemble are fixed",
            where="masters.count",
            fix="nothing was changed; restore the number, or begin anew: mesaform down, then"
            " mesaform up",
        )
