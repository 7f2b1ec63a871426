"""One run of planned changes: plan, show, ask, change machines in order, deploy, wait.

`mesaform up` and `mesaform upgrade` differ in their request. Questions are asked while no progress
is shown.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import typer

from mesaform.cli.context import Context
from mesaform.common.errors import BadInput
from mesaform.common.progress import Report

if TYPE_CHECKING:
    import aiohttp

    from mesaform.cli.change_view import ChangeView
    from mesaform.cli.cluster_waits import ClusterWaits
    from mesaform.provision.agent_changes import AgentDrains
    from mesaform.provision.lock import HeldLock
    from mesaform.provision.machine_changes import MachineChange
    from mesaform.provision.preview import Preview
    from mesaform.status.view import Status

STOPPING = "stopping Terraform in order; this may take some seconds"
Reporter = Callable[[], AbstractContextManager[Report]]


@dataclass(frozen=True, slots=True)
class ChangeRequest:
    """What a verb may change.

    Args:
        verb: the command line that continues the run, such as "mesaform up".
        upgraded_roles: roles whose machines take this program's image and user data.
        only_role: the one role whose machines and stack change; empty means everything.
        may_change_masters: whether masters may go out of service.
        yes: whether nothing is asked.
        dry_run: whether the run ends when the changes are shown.
        as_json: whether the changes are printed as JSON where they are the result.
        batch_size: how many agents are replaced at the same time.
        timeout_s: the bound of each wait for machines; 0 stands for that of the target.

    """

    verb: str
    upgraded_roles: frozenset[str] = frozenset()
    only_role: str = ""
    may_change_masters: bool = False
    yes: bool = False
    dry_run: bool = False
    as_json: bool = False
    batch_size: int = 1
    timeout_s: float = 0.0

    @property
    def stacks(self) -> tuple[str, ...] | None:
        """The stacks that are deployed; None means all."""
        return (f"{self.only_role}s",) if self.only_role else None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a run: the cluster as it is (None after a dry run), and the changes shown."""

    picture: Status | None
    changes: ChangeView


@dataclass(frozen=True, slots=True)
class ChangeRun:
    """Carries out a request on a cluster whose image is baked and whose locks are held."""

    context: Context
    reporter: Reporter
    held: HeldLock
    request: ChangeRequest

    def run(self) -> Outcome:
        """Plan, show, ask, change and wait.

        Raises:
            BadInput: the request does not allow what would change.
            typer.Exit: the answer to the question was no.
            MesaformError: something failed; the same command continues.

        """
        from mesaform import provision
        from mesaform.cli import interrupt

        with self.reporter() as report:
            preview = interrupt.run(
                lambda: provision.prepare(
                    self.context, report, self.held, self.request.upgraded_roles
                ),
                stopping=STOPPING,
            )
        preview = self._complete(preview)
        changes = self._confirm(preview)
        if self.request.dry_run:
            provision.forget_unused_deployment(self.context)
            return Outcome(None, changes)
        if not preview.masters_known:
            with self.reporter() as report:
                preview = interrupt.run(
                    lambda: provision.update_network(self.context, report, self.held),
                    stopping=STOPPING,
                )
            preview = self._complete(preview)
            changes = self._confirm(preview)
        with self.reporter() as report:
            picture = interrupt.run(lambda: self._change(preview, report), stopping=STOPPING)
        return Outcome(picture, changes)

    def _complete(self, preview: Preview) -> Preview:
        """The part of the preview that the request is about, with the autoscaler's agents."""
        from mesaform.cli.autoscaled_upgrade import with_autoscaled

        role = self.request.only_role
        if role:
            preview = preview.for_role(role)
        if role == "master":
            return preview
        return with_autoscaled(self.context, preview, self.request.upgraded_roles)

    def _confirm(self, preview: Preview) -> ChangeView:
        from mesaform.cli.confirm_changes import confirm_changes

        require_allowed(preview, self.request)
        try:
            return confirm_changes(self.context, preview, self.request)
        except (typer.Exit, BadInput):
            from mesaform import provision

            provision.forget_unused_deployment(self.context)
            raise

    async def _change(self, preview: Preview, report: Report) -> Status:
        from mesaform import provision
        from mesaform.cli.autoscaled_upgrade import replace_autoscaled
        from mesaform.cli.cluster_waits import ClusterWaits
        from mesaform.cli.wiring import Wiring

        waits = ClusterWaits(self.context, report, self.request.timeout_s)
        context, held = self.context, self.held
        await provision.replace_masters(context, report, held, preview, waits.until_serving)
        async with Wiring(context).open_session() as session:
            if any(agent.is_disruptive for agent in preview.agents):
                drains = self._drains(session, waits)
                batch_size = self.request.batch_size
                await provision.change_agents(context, report, held, preview, drains, batch_size)
            await provision.deploy(context, report, held, preview, self.request.stacks)
            await self._drains(session, waits).give_back(provision.terraform_instance_ids(context))
        if "agent" in self.request.upgraded_roles:
            await replace_autoscaled(context, waits, self.request.batch_size)
        return await waits.until_up()

    def _drains(self, session: aiohttp.ClientSession, waits: ClusterWaits) -> AgentDrains:
        from mesaform.cli.wiring import Wiring
        from mesaform.provision.agent_changes import AgentDrains

        return AgentDrains(
            Wiring(self.context).operator(session),
            self.context.cluster_dir,
            self.context.spec.autoscaler.drain_grace_s,
            waits.bound_s,
        )


def require_allowed(preview: Preview, request: ChangeRequest) -> None:
    """Check that the request allows what would change.

    Raises:
        BadInput: masters would go out of service without `--upgrade`, running machines would not
            work together with new ones, or the role that is to be upgraded cannot be planned.

    """
    _require_compatible(preview)
    lines = [_describe(master) for master in preview.masters if master.is_disruptive]
    if lines and not request.may_change_masters:
        raise BadInput(
            "running masters would go out of service:\n" + "\n".join(lines),
            where="masters",
            fix="nothing was changed; to replace them one at a time, each only while all others"
            f" serve: {request.verb} --upgrade",
        )
    if request.only_role and (f"{request.only_role}s" in preview.unplanned):
        raise BadInput(
            f"the {request.only_role}s cannot be planned before other changes are deployed",
            where=f"{request.only_role}s",
            fix="nothing was changed; deploy those first: mesaform up",
        )


def _require_compatible(preview: Preview) -> None:
    """Check that no machine stays with settings of which others must not have another value.

    Raises:
        BadInput: one does.

    """
    if not preview.incompatible:
        return
    lines = [
        f"  {machine.name} ({machine.instance_id}): {', '.join(machine.why)}"
        for machine in preview.incompatible
    ]
    settings = sorted({name for machine in preview.incompatible for name in machine.why})
    raise BadInput(
        "running machines read these settings when they boot, and would not work together with"
        " machines or commands that have the new ones:\n" + "\n".join(lines),
        where=", ".join(settings),
        fix="nothing was changed; to replace the machines, masters one at a time, agents drained:"
        " mesaform up --upgrade",
    )


def _describe(change: MachineChange) -> str:
    text = f"  {change.action} {change.name} ({change.instance_id})"
    return f"{text} because of {', '.join(change.why)}" if change.why else text
