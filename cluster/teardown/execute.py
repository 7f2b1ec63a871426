"""Execution of a teardown plan. Each step looks at the cloud, so every step may be repeated.

A fault before the sweep does not stop the teardown: a freeze that no autoscaler obeys, an agent
that does not drain and a Terraform that fails are reported. The sweep needs only tags and removes
what they left. The listing at the end decides.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace

from mesaform.aws.resources.owned import KEPT_UNLESS_ASKED, OwnedResource
from mesaform.aws.resources.registry import count_by_kind
from mesaform.aws.resources.sweep import Remaining, SweepResult
from mesaform.common.errors import Busy, MesaformError
from mesaform.common.json_types import as_list
from mesaform.common.lock_wait import wait_for_earlier
from mesaform.common.progress import Report, Stage, stage
from mesaform.teardown.account_check import listed_ids, unproven_ids
from mesaform.teardown.journal import Journal
from mesaform.teardown.plan import Plan, Step, as_owned, is_foreign
from mesaform.teardown.receipt import (
    MachineUsage,
    Receipt,
    ReceiptFacts,
    last_receipt_at,
    merge_usage,
    write_receipt,
)
from mesaform.teardown.survey import Operator, Survey, TeardownPorts, agent_of_task

OBEY_S = 20.0
"""Seconds that the autoscaler has to report that it obeys the freeze: a few of its passes."""
DRAIN_MARGIN_S = 10.0
"""Seconds beyond the tasks' grace until a drain is given up."""
POLL_S = 0.5
FREEZE_REASON = "mesaform down"
TITLES = {
    "freeze": "Freeze the autoscaler",
    "deactivate": "Stop new work",
    "drain": "Drain agents",
    "terminate": "Terminate what Terraform does not know",
    "destroy": "Destroy the stacks",
    "sweep": "Sweep by tag and prove it",
}
STATE_KIND = "resource of Terraform's state"
UNPROVEN = (
    "the account does not show it, which proves nothing: its tags may be gone; look for it, and"
    " remove it and the state by hand"
)
LEDGER_KINDS = ("machine_started", "machine_stopped", "receipt")


@dataclass(frozen=True, slots=True)
class Outcome:
    """Result of a teardown.

    `kept` is what the last listing showed and the plan keeps; `troubles` are faults that did not
    stop the teardown.
    """

    swept: SweepResult
    kept: tuple[OwnedResource, ...]
    troubles: tuple[str, ...]


class Teardown:
    """One run of one plan.

    Args:
        ports: what the teardown talks to.
        journal: the record of this teardown.
        report: receives progress.
        drain_grace_s: the most that tasks are given to stop; all agents drain at once, so it bounds
            the step.

    """

    def __init__(
        self, ports: TeardownPorts, journal: Journal, report: Report, *, drain_grace_s: float
    ) -> None:
        self._ports = ports
        self._journal = journal
        self._report = report
        self._drain_grace_s = drain_grace_s
        self._troubles: list[str] = []

    @property
    def troubles(self) -> tuple[str, ...]:
        """Faults so far that did not stop the teardown."""
        return tuple(self._troubles)

    async def run(self, surveyed: Survey, plan: Plan) -> Outcome:
        """Carry the plan out, to the proof.

        Raises:
            Busy: Terraform of an earlier run is still at work.
            CloudError: the cloud stopped answering; run again to continue.

        """
        self._journal.record_machines(surveyed.usage, plan.usd_per_hour, self._ports.clock())
        self._journal.record_seen(listed_ids(surveyed.inventory))
        for step in plan.steps:
            await self._run_step(step, surveyed)
        if plan.stacks:
            await self._destroy(plan.stacks)
        return await self._sweep(plan)

    async def _run_step(self, step: Step, surveyed: Survey) -> None:
        """Run a step of its own; `destroy` and `sweep` run once, after all others."""
        if step.kind == "freeze":
            await self._freeze()
        elif step.kind == "terminate":
            await self._terminate(step, surveyed)
        elif self._ports.operator is not None:
            await self._quiesce(step, surveyed, self._ports.operator)

    async def _quiesce(self, step: Step, surveyed: Survey, operator: Operator) -> None:
        agents = {machine.instance_id: machine.agent_id for machine in surveyed.inventory.machines}
        agent_ids = [agents[instance_id] for instance_id in step.touches]
        if step.kind == "deactivate":
            await self._deactivate(operator, agent_ids)
        elif step.kind == "drain":
            await self._drain(operator, agent_ids)

    @contextmanager
    def _step(self, kind: str) -> Iterator[Stage]:
        name = TITLES[kind]
        with stage(self._report, name) as under_way:
            self._journal.record_start(name, self._ports.clock())
            yield under_way
            self._journal.record_end(name, self._ports.clock(), under_way.outcome)

    def _add_trouble(self, text: str) -> str:
        self._troubles.append(text)
        return text

    async def _freeze(self) -> None:
        control = self._ports.control
        if control is None:
            return
        with self._step("freeze") as under_way:
            requested_at = self._ports.clock()
            await asyncio.to_thread(control.freeze, FREEZE_REASON)
            while (waited_s := self._ports.clock() - requested_at) < OBEY_S:
                heartbeat = await asyncio.to_thread(control.last_heartbeat)
                if _obeys_freeze(heartbeat, requested_at):
                    under_way.outcome = "it obeys"
                    return
                under_way.advance(f"waiting for its next heartbeat, {OBEY_S - waited_s:.0f} s more")
                await self._ports.sleep(POLL_S)
            under_way.outcome = self._add_trouble(
                f"no heartbeat obeyed the freeze in {OBEY_S:.0f} s; it goes with the masters"
            )

    async def _deactivate(self, operator: Operator, agent_ids: list[str]) -> None:
        with self._step("deactivate") as under_way:
            results = await asyncio.gather(
                *(operator.deactivate(agent_id) for agent_id in agent_ids), return_exceptions=True
            )
            failures = _failures(results)
            under_way.outcome = f"{len(agent_ids) - len(failures)} agents take no new task"
            if failures:
                under_way.outcome += "; " + self._add_trouble(
                    f"{len(failures)} could not be deactivated: {failures[0]}"
                )

    async def _drain(self, operator: Operator, agent_ids: list[str]) -> None:
        with self._step("drain") as under_way:
            began = self._ports.clock()
            failures: list[str] = []
            for agent_id in agent_ids:  # in the plan's order: fewest tasks first
                try:
                    await operator.drain(agent_id, self._drain_grace_s)
                except MesaformError as error:
                    failures.append(_first_line(error))
            busy = await self._wait_for_drain(operator, set(agent_ids), began, under_way)
            under_way.outcome = (
                f"{len(agent_ids) - busy} of {len(agent_ids)} agents empty after"
                f" {self._ports.clock() - began:.0f} s"
            )
            if failures:
                under_way.outcome += "; " + self._add_trouble(
                    f"{len(failures)} would not drain: {failures[0]}"
                )

    async def _wait_for_drain(
        self, operator: Operator, agent_ids: set[str], began: float, under_way: Stage
    ) -> int:
        """How many agents still run tasks when all are empty or the time is up.

        The wait ends when the engine stops answering.
        """
        bound_s = self._drain_grace_s + DRAIN_MARGIN_S
        while True:
            try:
                running = await operator.get_tasks()
            except MesaformError as error:
                self._add_trouble(
                    f"the engine stopped answering while agents drained: {_first_line(error)}"
                )
                return len(agent_ids)
            located = [agent_of_task(task) for task in as_list(running.get("tasks"))]
            tasks = [agent_id for agent_id in located if agent_id in agent_ids]
            if not tasks or self._ports.clock() - began >= bound_s:
                return len(set(tasks))
            under_way.advance(f"{len(tasks)} tasks on {len(set(tasks))} agents")
            await self._ports.sleep(POLL_S)

    async def _terminate(self, step: Step, surveyed: Survey) -> None:
        machines = {machine.key: as_owned(machine) for machine in surveyed.inventory.machines}
        present = [machines[key] for key in step.removes if key in machines]
        with self._step("terminate") as under_way:
            refused = await self._ports.sweep.remove_all(present, under_way.advance)
            for text in sorted({_first_line(error) for error in refused.values()}):
                self._add_trouble(text)
            under_way.outcome = f"{len(present) - len(refused)} machines"
            if refused:
                under_way.outcome += f"; {len(refused)} are left to the sweep"

    async def _destroy(self, stacks: tuple[str, ...]) -> None:
        try:
            with self._step("destroy") as under_way:
                under_way.advance(", ".join(stacks))
                await wait_for_earlier(
                    lambda: self._ports.destroy(stacks),
                    under_way,
                    self._ports.clock,
                    self._ports.sleep,
                )
                under_way.outcome = ", ".join(stacks)
        except Busy:  # an earlier Terraform still creates: a sweep now would miss what it creates
            raise
        except MesaformError as error:  # the stage is reported as failed; the sweep needs no state
            self._add_trouble(f"{TITLES['destroy']}: {_first_line(error)}")

    async def _sweep(self, plan: Plan) -> Outcome:
        kept_keys = {resource.key for resource in plan.kept} if plan.request.agents_only else set()

        def is_removable(resource: OwnedResource) -> bool:
            return resource.key not in kept_keys and not self._is_foreign(resource)

        with self._step("sweep") as under_way:
            swept = await self._ports.sweep.run(
                images=plan.request.images,
                wanted=is_removable,
                report=lambda text: under_way.advance(f"still listed: {text}"),
            )
            listed = await self._ports.sweep.list_patiently()
            swept.remaining += self._unproven(plan)
            under_way.outcome = self._describe_sweep(swept)
        if swept.is_clean and not plan.request.agents_only:
            await asyncio.to_thread(self._ports.forget)
            await self._lift_freeze()
        remaining = {item.resource.key for item in swept.remaining}
        kept = tuple(resource for resource in listed if resource.key not in remaining)
        return Outcome(swept, kept, tuple(self._troubles))

    def _unproven(self, plan: Plan) -> list[Remaining]:
        """What Terraform's state lists and no listing showed: its absence proves nothing."""
        if plan.request.agents_only:
            return []
        ids = unproven_ids(self._ports.stacks(), self._journal.seen)
        return [Remaining(OwnedResource(STATE_KIND, identity), UNPROVEN) for identity in ids]

    def _describe_sweep(self, swept: SweepResult) -> str:
        if not swept.is_clean:
            return self._add_trouble(f"{len(swept.remaining)} would not go")
        return f"nothing left after {swept.rounds} look{'s' * (swept.rounds != 1)}"

    def _is_foreign(self, resource: OwnedResource) -> bool:
        """Whether a resource carries the id of another deployment of the same name."""
        return is_foreign(resource.tags, self._ports.deployment_id)

    async def _lift_freeze(self) -> None:
        """Lift the freeze and remove overrides: the next cluster of this name must be free.

        No autoscaler is left. A freeze that cannot be lifted now is lifted by `mesaform up`.
        """
        control = self._ports.control
        if control is not None:
            with suppress(MesaformError):
                await asyncio.to_thread(control.update_overrides, lambda _: ())
            with suppress(MesaformError):
                await asyncio.to_thread(control.unfreeze)

    def receipt(self, surveyed: Survey, outcome: Outcome, facts: ReceiptFacts) -> Receipt:
        """The receipt of the whole teardown, earlier runs included; also written to the ledger.

        Args:
            surveyed: the survey that the plan was made from.
            outcome: the result of `run`.
            facts: the cluster, the time, and what the account keeps; the rest is filled in here.

        """
        now = facts.now
        kept_keys = {resource.key for resource in outcome.kept}
        kept = [usage for usage in surveyed.usage if ("instance", usage.instance_id) in kept_keys]
        self._journal.record_machines(kept, 0.0, now)
        rows = self._ledger_rows()
        machines = merge_usage(self._journal.machines(now), rows, now)
        receipt = write_receipt(
            machines,
            replace(
                facts,
                stopped_usd_per_hour=self._journal.usd_per_hour,
                kept=outcome.kept,
                swept=outcome.swept.removed_counts(),
                left=[
                    f"{item.resource.kind} {item.resource.id}: {item.reason}"
                    for item in outcome.swept.remaining
                ],
                listed=self._listed_counts(outcome),
                unaccounted=_unaccounted(surveyed, machines, last_receipt_at(rows)),
            ),
        )
        self._append_to_ledger(receipt)
        return receipt

    def _listed_counts(self, outcome: Outcome) -> dict[str, int]:
        counts = count_by_kind(outcome.kept)
        return {
            kind: counts.get(kind, 0)
            for kind in self._ports.sweep.kinds
            if kind not in KEPT_UNLESS_ASKED
        }

    def _append_to_ledger(self, receipt: Receipt) -> None:
        if self._ports.ledger is None:
            return
        try:
            self._ports.ledger.append(receipt.as_record())
        except MesaformError as error:
            self._add_trouble(f"the receipt is not in the ledger: {_first_line(error)}")

    def _ledger_rows(self) -> list[dict[str, object]]:
        if self._ports.ledger is None:
            return []
        try:
            return self._ports.ledger.read(kinds=LEDGER_KINDS)
        except MesaformError as error:
            self._add_trouble(
                "the ledger cannot be read, machines that ended before are missing:"
                f" {_first_line(error)}"
            )
            return []


def _obeys_freeze(heartbeat: Mapping[str, object] | None, since: float) -> bool:
    if not heartbeat or not heartbeat.get("frozen"):
        return False
    return float(str(heartbeat.get("at", 0.0))) >= since


def _unaccounted(surveyed: Survey, machines: Sequence[MachineUsage], since: float) -> list[str]:
    """Ids of machines of this life of the cluster whose end is not known."""
    known = {machine.instance_id for machine in machines}
    return [
        instance_id
        for instance_id, launched_at in surveyed.ended
        if instance_id not in known and launched_at > since
    ]


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0]


def _failures(results: Sequence[BaseException | None]) -> list[str]:
    """Failures as text.

    Raises:
        BaseException: the first that is no `MesaformError`.

    """
    failures: list[str] = []
    for result in results:
        if isinstance(result, MesaformError):
            failures.append(_first_line(result))
        elif isinstance(result, BaseException):
            raise result
    return failures
