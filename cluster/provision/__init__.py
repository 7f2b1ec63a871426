"""Deployment and destruction of a cluster's stacks with `cdktf`, and reading of their state.

Used by the command line. Imports nothing heavy until a function is called.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from contextlib import AbstractContextManager

    from mesaform.common.progress import Report
    from mesaform.provision.adoption import Findings, Remainder
    from mesaform.provision.agent_changes import AgentDrains
    from mesaform.provision.cluster_context import ClusterContext
    from mesaform.provision.deployment import Caller
    from mesaform.provision.lock import HeldLock
    from mesaform.provision.ownership import AccountView, FolderKnowledge
    from mesaform.provision.preview import Preview
    from mesaform.provision.rolling import ChangeRun, WaitUntilServing
    from mesaform.provision.terraform_state import Outputs


def require_ownership(place: ClusterContext) -> Caller:
    """Check that this folder may change what the account holds of the cluster's name. Blocks.

    Returns whose credentials are in use. Changes nothing. The environment must point at the cloud.

    Raises:
        NotOwned: the account is another one than at the first `mesaform up`, it holds machines or
            a VPC of this name that this folder did not create, or Terraform's state is damaged.
        CloudError: the cloud did not answer.

    """
    return _look_at_account(place)[0]


async def prepare(
    place: ClusterContext,
    report: Report,
    held: HeldLock,
    upgraded_roles: Collection[str] = (),
) -> Preview:
    """Check ownership, take over what an interrupted run left, and plan what would change.

    Resources of the interrupted run that the stacks declare are adopted into Terraform's state, so
    that no living machine is replaced.

    Args:
        place: the cluster.
        report: receives progress.
        held: the lock of Terraform.
        upgraded_roles: roles whose machines take this program's image and user data; machines of
            the other roles keep what they booted.

    Raises:
        NotOwned: as for `require_ownership`.
        MissingPrerequisite: no image of this recipe, or a program is missing.
        BadInput: the change cannot be made while masters run.
        CloudError: the cloud did not answer.

    """
    import asyncio

    from mesaform.provision import cdktf_driver, image, orphans, outdated, preview
    from mesaform.provision.interrupted import take_over
    from mesaform.provision.terraform_state import managed_resources

    boot_image = await asyncio.to_thread(image.look_up, place.spec)
    caller, view, knowledge = await asyncio.to_thread(_look_at_account, place)
    is_interrupted = knowledge.interrupted_at is not None and knowledge.deployment is not None
    # Before the plan: a new secret or id changes machines, which must be seen and asked.
    # The zones of an existing deployment are recorded once other ones are confirmed.
    zones = place.spec.zones if knowledge.deployment is None else ()
    outdated.require_changeable(place.cluster_dir, place.spec)
    await asyncio.to_thread(_establish, place, caller, zones)
    await _settle_authority(place, report)
    await cdktf_driver.synthesize(place, boot_image, report, held, upgraded_roles)
    if is_interrupted:
        await take_over(place, boot_image, report, held)
        await orphans.clear_orphans(place, view, knowledge, report)
    if not any(managed_resources(place.cluster_dir)):
        return preview.preview_first(place.cluster_dir)
    return await _preview(place, report, held)


async def _preview(place: ClusterContext, report: Report, held: HeldLock) -> Preview:
    """Plan the synthesized stacks, and check what no change of masters may do.

    Raises:
        BadInput: the change cannot be made while masters run.

    """
    import asyncio

    from mesaform.provision import booted, image, preview, rolling
    from mesaform.provision.terraform_state import Outputs

    boot_image = await asyncio.to_thread(image.look_up, place.spec)
    planned = await preview.preview_changes(place, boot_image, report, held)
    known_masters = (outputs(place) or Outputs()).master_ids
    rolling.require_same_count(len(known_masters), place.spec.masters.count)
    rolling.require_same_network(planned)
    rolling.require_volumes(planned)
    machines = booted.Booted(place.spec.region)
    return await asyncio.to_thread(booted.with_boot_settings, planned, place.cluster_dir, machines)


async def update_network(place: ClusterContext, report: Report, held: HeldLock) -> Preview:
    """Bring the network up to date, and plan again: for masters that could not be planned before.

    Raises:
        BadInput: the change cannot be made while masters run.
        CloudError: Terraform failed, or still cannot plan the masters.

    """
    from mesaform.common.errors import CloudError

    run = await _open_run(place, report, held)
    await run.apply_network()
    planned = await _preview(place, report, held)
    if not planned.masters_known:
        raise CloudError(
            f"Terraform cannot plan the masters: {planned.errors['masters']}",
            where="masters",
            fix="no machine was changed; correct it and run the same command again",
        )
    return planned


async def _open_run(place: ClusterContext, report: Report, held: HeldLock) -> ChangeRun:
    import asyncio

    from mesaform.provision import image
    from mesaform.provision.deployment import identify_caller
    from mesaform.provision.rolling import ChangeRun
    from mesaform.provision.terraform_run import open_runner

    boot_image = await asyncio.to_thread(image.look_up_or_placeholder, place.spec)
    caller = await asyncio.to_thread(identify_caller, place.spec.region)
    runner = await open_runner(place, boot_image, held)
    return ChangeRun(place.cluster_dir, runner, report, caller.cloud_time_s)


async def deploy(
    place: ClusterContext,
    report: Report,
    held: HeldLock | None = None,
    preview: Preview | None = None,
    stacks: Collection[str] | None = None,
) -> Outputs:
    """Bring all stacks to what the spec says. Idempotent; carries on where an earlier run stopped.

    The environment must point at the cloud (`Context.enter_cloud`). Machines that change must have
    been changed before (`replace_masters`, `change_agents`).

    Args:
        place: the cluster.
        report: receives progress.
        held: the lock of Terraform, if the caller holds it.
        preview: the result of `prepare`, if the caller has run it under that lock.
        stacks: only these; None means all.

    Raises:
        NotOwned: as for `require_ownership`.
        MissingPrerequisite: no image of this recipe, or a program is missing.
        BadInput: running machines would go out of service, and the caller did not prepare it.
        Busy: Terraform of an earlier run is still at work.
        CloudError: Terraform failed: the first cause, with its resource.

    """
    import asyncio

    from mesaform.provision import image, orphans
    from mesaform.provision.state_folders import STACKS
    from mesaform.provision.terraform_driver import StacksRun
    from mesaform.provision.terraform_state import Outputs, outputs

    boot_image = await asyncio.to_thread(image.look_up, place.spec)
    with _terraform_turn(place, held) as turn:
        caller, view, knowledge = await asyncio.to_thread(_look_at_account, place)
        if preview is None:
            preview = await _prepare_alone(place, report, turn)
        await asyncio.to_thread(_establish, place, caller, place.spec.zones)
        await _settle_access(place, report)
        await _settle_authority(place, report)
        await _settle_expiry(place, report)
        orphans.mark_unfinished(place.cluster_dir, caller.cloud_time_s)
        wanted = [stack for stack in stacks or STACKS if stack not in preview.unchanged]
        await StacksRun(place, boot_image, report, turn).run("apply", wanted)
        await asyncio.to_thread(_renew_credentials, place, view, knowledge, report)
        orphans.unfinished(place.cluster_dir).unlink()
    return outputs(place) or Outputs()


def _renew_credentials(
    place: ClusterContext, view: AccountView, knowledge: FolderKnowledge, report: Report
) -> None:
    """Associate machines that outlived their instance profile with the present one."""
    from mesaform.aws.profile_associations import ProfileAssociations
    from mesaform.provision.machine_credentials import renew_credentials

    own = [machine for machine in view.machines if knowledge.has_tagged(machine.tags)]
    renew_credentials(own, ProfileAssociations(place.spec.region), report)


async def _prepare_alone(place: ClusterContext, report: Report, held: HeldLock) -> Preview:
    """Prepare a deployment that takes no running machine out of service.

    Raises:
        BadInput: it would; see `replace_masters` and `change_agents`.

    """
    from mesaform.common.errors import BadInput

    preview = await prepare(place, report, held)
    if not preview.masters_known:
        preview = await update_network(place, report, held)
    await replace_masters(place, report, held, preview)
    if any(agent.is_disruptive for agent in preview.agents):
        raise BadInput("agents are drained and changed by `mesaform up` only")
    return preview


async def plan_adoption(place: ClusterContext, report: Report, held: HeldLock) -> Findings:
    """What the account holds of this folder's deployment and Terraform's state does not list.

    Synthesizes the stacks; changes nothing in the account. State files that cannot be read are set
    aside first, because Terraform would refuse them.

    Raises:
        NotOwned: the folder has no deployment id, or the credentials are of another account.
        CloudError: the cloud did not answer.

    """
    import asyncio

    from mesaform.provision import adoption, cdktf_driver, image
    from mesaform.provision.authority import refresh_copy
    from mesaform.provision.deployment import require_deployment
    from mesaform.provision.terraform_state import set_unreadable_aside

    await asyncio.to_thread(require_pinned_account, place)
    deployment = require_deployment(place.cluster_dir)
    boot_image = await asyncio.to_thread(image.look_up_or_placeholder, place.spec)
    await asyncio.to_thread(refresh_copy, place)
    set_unreadable_aside(place.cluster_dir)
    await cdktf_driver.synthesize(place, boot_image, report, held)
    return await adoption.find_and_search(place, deployment.deployment_id, report)


def restore_deployment(place: ClusterContext, deployment_id: str) -> None:
    """Write the record of a deployment whose folder was lost, once the account proves it. Blocks.

    Raises:
        NotOwned: the folder has another deployment, or the account holds no VPC with this id and
            the cluster's name.
        CloudError: the cloud did not answer.

    """
    from mesaform.common.errors import NotOwned
    from mesaform.provision import deployment, ownership
    from mesaform.provision.living_secret import read_living_secret
    from mesaform.provision.zones import zones_of_deployment

    existing = deployment.read_deployment(place.cluster_dir)
    if existing and existing.deployment_id != deployment_id:
        raise NotOwned(
            f"this folder's deployment is {existing.deployment_id}, not {deployment_id}",
            where=str(place.cluster_dir),
            fix="nothing was changed; leave --deployment out",
        )
    view = ownership.view_account(place.spec.name, place.spec.region)
    ids = ownership.deployment_ids(view)
    if deployment_id not in ids:
        raise NotOwned(
            f"the account holds no VPC of {place.spec.name} with the deployment id {deployment_id}",
            where=place.spec.region,
            fix=f"ids there: {', '.join(sorted(ids)) or 'none'}",
        )
    region = place.spec.region
    caller, zones = deployment.identify_caller(region), zones_of_deployment(region, deployment_id)
    deployment.establish_deployment(
        place.cluster_dir,
        caller,
        region,
        deployment_id=deployment_id,
        zones=zones,
        secret=read_living_secret(view, deployment_id, region),
    )


async def adopt(
    place: ClusterContext,
    findings: Findings,
    report: Report,
    held: HeldLock,
    *,
    may_update: bool,
) -> tuple[Remainder, ...]:
    """Import what `plan_adoption` found, and compare. Returns what `mesaform up` would change.

    Idempotent; may be interrupted and repeated. With `may_update` settings that exist in the
    configuration only are applied, where a stack differs in nothing else.

    Raises:
        CloudError: Terraform cannot import something.

    """
    import asyncio

    from mesaform.provision import adoption, image
    from mesaform.provision.terraform_run import open_runner

    await asyncio.to_thread(_share_restored, place)
    boot_image = await asyncio.to_thread(image.look_up_or_placeholder, place.spec)
    runner = await open_runner(place, boot_image, held)
    if findings.imports:
        await adoption.adopt(place, findings.imports, runner, report)
    may_update = may_update and boot_image is not image.NOTHING_TO_BOOT
    return await adoption.settle(place, runner, report, may_update=may_update)


def _share_restored(place: ClusterContext) -> None:
    """Store a restored record, and remove stored states that could not be read (versions stay)."""
    from mesaform.provision.shared_state import open_shared_state, state_name
    from mesaform.provision.state_folders import STACKS
    from mesaform.provision.terraform_state import read_state

    shared = open_shared_state(place)
    if shared is None:
        return
    shared.share()
    for stack in STACKS:
        is_absent = read_state(place.cluster_dir, stack).condition == "absent"
        if is_absent and shared.objects.read(state_name(stack)) is not None:
            shared.remove_state(stack)


async def replace_masters(
    place: ClusterContext,
    report: Report,
    held: HeldLock,
    preview: Preview,
    wait_until_serving: WaitUntilServing | None = None,
) -> None:
    """Create missing masters, then change the others one at a time, as a preview says.

    Does nothing where no master changes or none exists yet. An interrupted run continues with the
    next `prepare` and `replace_masters`.

    Args:
        place: the cluster.
        report: receives progress.
        held: the lock of Terraform.
        preview: the result of `prepare` under that lock.
        wait_until_serving: see `rolling.WaitUntilServing`; without it no master is changed.

    Raises:
        BadInput: masters change, and nobody waits for them.
        CloudError: Terraform failed.

    """
    from mesaform.common.errors import BadInput
    from mesaform.provision.rolling import change_masters, is_first_deployment

    count = place.spec.masters.count
    if not preview.masters or is_first_deployment(preview.masters, count):
        return
    if wait_until_serving is None:
        raise BadInput("masters are replaced by `mesaform up` only, one at a time")
    await _settle_access(place, report)
    await _settle_expiry(place, report)
    run = await _open_run(place, report, held)
    await change_masters(run, preview.masters, count, wait_until_serving)


async def change_agents(
    place: ClusterContext,
    report: Report,
    held: HeldLock,
    preview: Preview,
    drains: AgentDrains,
    batch_size: int = 1,
) -> None:
    """Drain and change the agents that a preview takes out of service, batch by batch.

    An interrupted run continues with the next `prepare` and `change_agents`.

    Args:
        place: the cluster.
        report: receives progress.
        held: the lock of Terraform.
        preview: the result of `prepare` under that lock.
        drains: empties agents through the leading master.
        batch_size: how many agents are replaced at the same time.

    Raises:
        MesaformError: an agent is not empty in time, or a new one does not register.
        CloudError: Terraform failed.

    """
    from mesaform.provision import agent_changes
    from mesaform.provision.terraform_state import ids_at

    if not any(agent.is_disruptive for agent in preview.agents):
        return
    run = await _open_run(place, report, held)
    batches = agent_changes.AgentBatches(
        batch_size, lambda addresses: ids_at(place.cluster_dir, "agents", addresses)
    )
    await agent_changes.change_agents(run, drains, batches, preview.agents)


async def _settle_access(place: ClusterContext, report: Report) -> None:
    """Store the operator's token and the frameworks' secrets before a master reads them."""
    import asyncio

    from mesaform.common.progress import stage
    from mesaform.provision.access import ensure_access

    if place.spec.access.is_in_use:
        with stage(report, "Access") as under_way:
            under_way.outcome = await asyncio.to_thread(ensure_access, place)


async def _settle_authority(place: ClusterContext, report: Report) -> None:
    """Create the CA before the stacks write its certificate into user data."""
    import asyncio

    from mesaform.common.progress import stage
    from mesaform.provision.authority import ensure_authority

    if place.spec.tls:
        with stage(report, "TLS") as under_way:
            under_way.outcome = await asyncio.to_thread(ensure_authority, place)


async def _settle_expiry(place: ClusterContext, report: Report) -> None:
    """Store when the cluster ends, before a master reads it."""
    import asyncio

    from mesaform.aws.client import account_bucket
    from mesaform.aws.control import S3Control
    from mesaform.common.progress import stage
    from mesaform.provision.expiry import ensure_expiry

    def settle() -> str:
        spec = place.spec
        control = S3Control(account_bucket(spec.region), spec.name, spec.region)
        return ensure_expiry(place, control)

    if place.spec.ttl is None:
        await asyncio.to_thread(settle)
        return
    with stage(report, "Time to live") as under_way:
        under_way.outcome = await asyncio.to_thread(settle)


def _establish(place: ClusterContext, caller: Caller, zones: Sequence[str] = ()) -> None:
    """Settle the deployment's record in the folder, and in the bucket where states are shared.

    Without `zones` the record keeps those that it has.
    """
    from mesaform.provision.deployment import establish_deployment
    from mesaform.provision.shared_state import open_shared_state

    establish_deployment(place.cluster_dir, caller, place.spec.region, zones=zones)
    if shared := open_shared_state(place):
        shared.share()


def _terraform_turn(
    place: ClusterContext, held: HeldLock | None
) -> AbstractContextManager[HeldLock]:
    from mesaform.provision.lock import hold_terraform

    return nullcontext(held) if held else hold_terraform(place.cluster_dir, "cdktf")


def _look_at_account(place: ClusterContext) -> tuple[Caller, AccountView, FolderKnowledge]:
    """The caller, what the account holds, and what this folder can prove, once they agree."""
    from mesaform.provision import deployment, ownership
    from mesaform.provision.orphans import interrupted_at
    from mesaform.provision.terraform_state import read_states

    spec, folder = place.spec, place.cluster_dir
    caller = deployment.identify_caller(spec.region)
    record = deployment.read_deployment(folder)
    deployment.require_account(record, caller, spec.region, place.file)
    view = ownership.view_account(spec.name, spec.region)
    knowledge = ownership.FolderKnowledge(read_states(folder), record, interrupted_at(folder))
    where = f"the AWS account {caller.account_id} ({spec.region})"
    ownership.require_ownership(view, knowledge, spec.name, where, folder)
    return caller, view, knowledge


async def destroy(
    place: ClusterContext,
    report: Report,
    stacks: tuple[str, ...] | None = None,
    held: HeldLock | None = None,
) -> None:
    """Destroy the stacks that have state, the network last. Idempotent.

    Needs no image.

    Args:
        place: the cluster.
        report: receives progress.
        stacks: only these; None means all. The network takes with it whatever is left in it.
        held: the lock of Terraform, if the caller holds it.

    Raises:
        NotOwned: the account is another one than at the first `mesaform up`.
        Busy: Terraform of an earlier run is still at work.
        CloudError: Terraform failed: the first cause, with its resource.

    """
    import asyncio

    from mesaform.provision import cdktf_driver
    from mesaform.provision.image import NOTHING_TO_BOOT
    from mesaform.provision.state_folders import STACKS, state_file
    from mesaform.provision.terraform_driver import StacksRun

    present = [stack for stack in STACKS if state_file(place.cluster_dir, stack).exists()]
    wanted = tuple(stack for stack in present if stacks is None or stack in stacks)
    if not wanted:
        return
    with _terraform_turn(place, held) as turn:
        await asyncio.to_thread(require_pinned_account, place)
        if not await asyncio.to_thread(_is_synthesized, place):
            await cdktf_driver.synthesize(place, NOTHING_TO_BOOT, report, turn)
        await StacksRun(place, NOTHING_TO_BOOT, report, turn).run("destroy", wanted)


def _is_synthesized(place: ClusterContext) -> bool:
    """Whether the folder has every stack as JSON, with its state where the cluster's states are."""
    from mesaform.provision.shared_state import open_shared_state
    from mesaform.provision.stack_order import is_synthesized

    shared = open_shared_state(place)
    return is_synthesized(place.cluster_dir, shared.bucket if shared else "")


def require_pinned_account(place: ClusterContext) -> Caller:
    """Check that the credentials reach the account in which this folder's cluster lives. Blocks.

    Raises:
        NotOwned: account or region differ from those of the first `mesaform up`.
        CloudError: the cloud did not answer.

    """
    from mesaform.provision import deployment

    caller = deployment.identify_caller(place.spec.region)
    record = deployment.read_deployment(place.cluster_dir)
    deployment.require_account(record, caller, place.spec.region, place.file)
    return caller


def forget_unused_deployment(place: ClusterContext) -> None:
    """Remove the record of a deployment that has created nothing: its first `up` was declined."""
    from mesaform.provision.orphans import interrupted_at
    from mesaform.provision.terraform_state import managed_resources

    if interrupted_at(place.cluster_dir) is None and not managed_resources(place.cluster_dir):
        forget_deployment(place)


def forget_deployment(place: ClusterContext) -> None:
    """Set aside what this folder knows of a cluster that is proven gone; the next `up` is a first.

    States that still list resources are renamed, and the record of the deployment is removed.
    """
    from mesaform.provision.authority import certificates_file
    from mesaform.provision.deployment import release_deployment
    from mesaform.provision.orphans import unfinished
    from mesaform.provision.shared_state import open_shared_state
    from mesaform.provision.terraform_state import set_states_aside

    if shared := open_shared_state(place):
        shared.forget()
    set_states_aside(place.cluster_dir)
    unfinished(place.cluster_dir).unlink(missing_ok=True)
    certificates_file(place.cluster_dir).unlink(missing_ok=True)
    release_deployment(place.cluster_dir)


def outputs(place: ClusterContext) -> Outputs | None:
    """The outputs of the stacks, as Terraform's state lists them; None if there is nothing."""
    from mesaform.provision.terraform_state import outputs as read

    return read(place)


def terraform_instance_ids(place: ClusterContext) -> set[str]:
    """The ids of the EC2 instances that Terraform knows."""
    from mesaform.provision.terraform_state import terraform_instance_ids as read

    return read(place)


def check_prerequisites(place: ClusterContext) -> None:
    """Check what must be installed.

    Raises:
        MissingPrerequisite: something is missing or too old; a line for each.

    """
    from mesaform.provision.prerequisites import check

    check(place)
