"""Doing what the plan says. Each step may be repeated at any time: it looks at the world, not at what an earlier run remembers.

What goes wrong before the sweep does not stop the teardown: a freeze that nobody obeys, an agent that does not drain, a Terraform that
fails are told, and the sweep, which needs only tags, takes what they left. Only the proof at the end decides.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from mesaform.aws.resources.owned import KEPT_UNLESS_ASKED, OwnedResource
from mesaform.aws.resources.registry import count_by_kind
from mesaform.aws.resources.sweep import SweepResult
from mesaform.common.errors import Busy, MesaformError, NotFound, Permanent
from mesaform.common.lock_wait import wait_for_earlier
from mesaform.common.progress import Report, Stage, stage
from mesaform.teardown.journal import Journal
from mesaform.teardown.plan import Plan, Step, as_owned
from mesaform.teardown.receipt import Facts, Receipt, last_receipt_at, merge, write
from mesaform.teardown.survey import Survey, World
from mesaform.topology.names import Tag

OBEY_S = 20.0  # how long the autoscaler may take to say that it obeys the freeze
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


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it. `kept` is what the proof found and the plan keeps; `troubles` are faults that the sweep made good."""

    swept: SweepResult
    kept: tuple[OwnedResource, ...]
    troubles: tuple[str, ...]


class Teardown:
    """One run of one plan.

    Args:
        drain_grace_s: the most that tasks are given to stop; all agents drain at once, so this bounds the step.

    """

    def __init__(
        self, world: World, journal: Journal, report: Report, *, drain_grace_s: float
    ) -> None:
        self._world = world
        self._journal = journal
        self._report = report
        self._drain_grace_s = drain_grace_s
        self._troubles: list[str] = []

    @property
    def troubles(self) -> tuple[str, ...]:
        """Faults so far that did not stop the teardown."""
        return tuple(self._troubles)

    async def run(self, found: Survey, plan: Plan) -> Outcome:
        """Carry the plan out, to the proof.

        Raises:
            CloudError: the cloud stopped answering; run again to carry on.

        """
        self._journal.saw(found.ran, plan.usd_per_hour, self._world.clock())
        agents = {machine.instance_id: machine.agent_id for machine in found.inventory.machines}
        machines = {machine.key: as_owned(machine) for machine in found.inventory.machines}
        for step in plan.steps:
            touched = [agents[instance_id] for instance_id in step.touches]
            if step.kind == "freeze":
                await self._freeze()
            elif step.kind == "deactivate":
                await self._deactivate(touched)
            elif step.kind == "drain":
                await self._drain(touched)
            elif step.kind == "terminate":
                await self._terminate(step, machines)
        if plan.stacks:
            await self._destroy(plan.stacks)
        return await self._sweep(plan)

    @contextmanager
    def _step(self, kind: str) -> Iterator[Stage]:
        name = TITLES[kind]
        with stage(self._report, name) as under_way:
            self._journal.began(name, self._world.clock())
            yield under_way
            self._journal.ended(name, self._world.clock(), under_way.outcome)

    def _trouble(self, what: str) -> str:
        self._troubles.append(what)
        return what

    async def _freeze(self) -> None:
        control = self._world.control
        if control is None:
            return
        with self._step("freeze") as under_way:
            asked_at = self._world.clock()
            await asyncio.to_thread(control.freeze, FREEZE_REASON)
            while self._world.clock() - asked_at < OBEY_S:
                heartbeat = await asyncio.to_thread(control.last_heartbeat)
                if (
                    heartbeat
                    and heartbeat.get("frozen")
                    and float(heartbeat.get("at", 0.0)) >= asked_at
                ):
                    under_way.outcome = "it obeys"
                    return
                under_way.advance(
                    f"waiting for its next heartbeat, {OBEY_S - (self._world.clock() - asked_at):.0f} s more"
                )
                await self._world.sleep(POLL_S)
            under_way.outcome = self._trouble(
                f"no heartbeat obeyed the freeze in {OBEY_S:.0f} s; it goes with the masters"
            )

    async def _deactivate(self, agent_ids: list[str]) -> None:
        operator = self._world.operator
        if operator is None:
            return
        with self._step("deactivate") as under_way:
            results = await asyncio.gather(
                *(operator.deactivate(agent_id) for agent_id in agent_ids), return_exceptions=True
            )
            failed = _failures(results)
            under_way.outcome = f"{len(agent_ids) - len(failed)} agents take no new task"
            if failed:
                under_way.outcome += "; " + self._trouble(
                    f"{len(failed)} could not be told: {failed[0]}"
                )

    async def _drain(self, agent_ids: list[str]) -> None:
        operator = self._world.operator
        if operator is None:
            return
        with self._step("drain") as under_way:
            began = self._world.clock()
            failed: list[str] = []
            for agent_id in agent_ids:  # in the plan's order: emptiest and dearest first
                try:
                    await operator.drain(agent_id, self._drain_grace_s)
                except MesaformError as error:
                    failed.append(str(error).partition("\n")[0])
            left = await self._wait_for_drain(set(agent_ids), began, under_way)
            under_way.outcome = f"{len(agent_ids) - left} of {len(agent_ids)} agents empty after {self._world.clock() - began:.0f} s"
            if failed:
                under_way.outcome += "; " + self._trouble(
                    f"{len(failed)} would not drain: {failed[0]}"
                )

    async def _wait_for_drain(self, agent_ids: set[str], began: float, under_way: Stage) -> int:
        """How many agents still run tasks when all are empty or the time is up. The engine going away ends the wait."""
        operator = self._world.operator
        bound_s = self._drain_grace_s + 10.0
        while operator is not None:
            try:
                running = (await operator.get_tasks()).get("tasks") or ()
            except MesaformError as error:
                self._trouble(
                    f"the engine stopped answering while agents drained: {str(error).partition(chr(10))[0]}"
                )
                return len(agent_ids)
            tasks = [task for task in running if task.get("agent_id", {}).get("value") in agent_ids]
            busy = {task["agent_id"]["value"] for task in tasks}
            if not busy or self._world.clock() - began >= bound_s:
                return len(busy)
            under_way.advance(f"{len(tasks)} tasks on {len(busy)} agents")
            await self._world.sleep(POLL_S)
        return len(agent_ids)

    async def _terminate(self, step: Step, machines: dict[tuple[str, str], OwnedResource]) -> None:
        doomed = [machines[key] for key in step.removes if key in machines]
        with self._step("terminate") as under_way:
            for machine in doomed:
                try:
                    await asyncio.to_thread(self._world.sweep.remove, machine)
                except (NotFound, Permanent) as error:
                    self._trouble(str(error).partition("\n")[0])
            under_way.outcome = f"{len(doomed)} machines"

    async def _destroy(self, stacks: tuple[str, ...]) -> None:
        name = TITLES["destroy"]
        try:
            with self._step("destroy") as under_way:
                under_way.advance(", ".join(stacks))
                await wait_for_earlier(
                    lambda: self._world.destroy(stacks),
                    under_way,
                    self._world.clock,
                    self._world.sleep,
                )
                under_way.outcome = ", ".join(stacks)
        except Busy:  # Terraform of an earlier run still creates: a sweep behind its back would miss what comes
            raise
        except MesaformError as error:  # the stage is told as failed; the sweep needs no Terraform
            self._trouble(f"{name}: {str(error).partition(chr(10))[0]}")

    async def _sweep(self, plan: Plan) -> Outcome:
        keeps = {
            resource.key
            for resource in plan.kept
            if plan.wish.agents_only or self._is_foreign(resource)
        }
        with self._step("sweep") as under_way:
            swept = await self._world.sweep.run(
                images=plan.wish.images,
                wanted=lambda resource: (
                    resource.key not in keeps and not self._is_foreign(resource)
                ),
                report=lambda text: under_way.advance(f"still there: {text}"),
            )
            remaining = await self._world.sweep.inventory()
            if swept.is_clean:
                under_way.outcome = (
                    f"nothing left after {swept.rounds} look{'s' * (swept.rounds != 1)}"
                )
            else:
                under_way.outcome = self._trouble(f"{len(swept.remaining)} would not go")
        if swept.is_clean and not plan.wish.agents_only:
            await asyncio.to_thread(self._world.forget)
            await self._lift_freeze()
        left = {one.resource.key for one in swept.remaining}
        return Outcome(
            swept, tuple(one for one in remaining if one.key not in left), tuple(self._troubles)
        )

    def _is_foreign(self, resource: OwnedResource) -> bool:
        """Whether a resource carries the id of another deployment of the same name."""
        own = self._world.deployment_id
        return bool(own) and resource.tags.get(Tag.DEPLOYMENT, own) != own

    async def _lift_freeze(self) -> None:
        """Nobody is left who could buy: the next cluster of this name must not find a freeze. One that stays is lifted by `up`."""
        if self._world.control is not None:
            with suppress(MesaformError):
                await asyncio.to_thread(self._world.control.unfreeze)

    def receipt(self, found: Survey, outcome: Outcome, facts: Facts) -> Receipt:
        """The receipt of the whole teardown, earlier runs included, written into the ledger as well."""
        now = facts.now
        self._journal.saw(
            [
                ran
                for ran in found.ran
                if ("instance", ran.instance_id) in {one.key for one in outcome.kept}
            ],
            0.0,
            now,
        )
        rows = self._rows()
        machines = merge(self._journal.machines(now), rows, now)
        known = {machine.instance_id for machine in machines}
        since = last_receipt_at(rows)
        unaccounted = [
            instance_id
            for instance_id, launched_at in found.ended
            if instance_id not in known and launched_at > since
        ]
        receipt = write(
            machines,
            Facts(
                cluster=facts.cluster,
                target=facts.target,
                region=facts.region,
                now=now,
                stopped_usd_per_hour=self._journal.usd_per_hour,
                kept=outcome.kept,
                also_kept=facts.also_kept,
                swept=outcome.swept.removed_counts(),
                left=[
                    f"{one.resource.kind} {one.resource.id}: {one.reason}"
                    for one in outcome.swept.remaining
                ],
                listed={
                    kind: count_by_kind(outcome.kept).get(kind, 0)
                    for kind in self._world.sweep.kinds
                    if kind not in KEPT_UNLESS_ASKED
                },
                unaccounted=unaccounted,
            ),
        )
        if self._world.ledger is not None:
            try:
                self._world.ledger.append(receipt.as_record())
            except MesaformError as error:
                self._trouble(
                    f"the receipt is not in the ledger: {str(error).partition(chr(10))[0]}"
                )
        return receipt

    def _rows(self) -> list[dict[str, object]]:
        if self._world.ledger is None:
            return []
        try:
            return self._world.ledger.read(kinds=("machine_started", "machine_stopped", "receipt"))
        except MesaformError as error:
            self._trouble(
                f"the ledger cannot be read, machines that ended before are missing: {str(error).partition(chr(10))[0]}"
            )
            return []


def _failures(results: list[BaseException | None]) -> list[str]:
    """What failed, as text; what is not ours to handle goes on its way."""
    for result in results:
        if isinstance(result, BaseException) and not isinstance(result, MesaformError):
            raise result
    return [
        str(result).partition("\n")[0] for result in results if isinstance(result, MesaformError)
    ]
