"""`mesaform doctor`: check the account before a cluster is created in it. Changes nothing."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated

import typer

from mesaform.cli.context import Context, open_context
from mesaform.cli.options import DEFAULT_FILE, FileOption, JsonOption, with_options
from mesaform.common.errors import Exit, MissingPrerequisite
from mesaform.common.progress import Report, stage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mesaform.common.architecture import Architecture
    from mesaform.config.schema import ClusterSpec
    from mesaform.doctor.finding import Finding
    from mesaform.doctor.subject import Subject

ACCOUNT_PLACEHOLDER = "ACCOUNT_ID"


@dataclass(frozen=True, slots=True, kw_only=True)
class DoctorOptions:
    """Command line of `mesaform doctor`."""

    file: FileOption = DEFAULT_FILE
    policy: Annotated[
        bool,
        typer.Option(
            "--policy", help="Print the IAM policy that an operator needs, and check nothing."
        ),
    ] = False
    as_json: JsonOption = False


def register(app: typer.Typer) -> None:
    app.command(help="Check this machine and the account: rights, zones, types, quotas, bucket.")(
        with_options(DoctorOptions, doctor)
    )


def doctor(options: DoctorOptions) -> None:
    """Print a table of findings; the exit code is 3 if `mesaform up` would fail."""
    context = open_context(options.file)
    if options.policy:
        _print_policy(context)
        return
    from mesaform.doctor.checks import examine
    from mesaform.doctor.finding import errors

    context.enter_cloud()
    findings = examine(replace(subject_of(_with_zones(context)), lacks=_lacks(context)))
    if options.as_json:
        typer.echo(json.dumps({"findings": [finding.as_json() for finding in findings]}, indent=2))
    else:
        from mesaform.cli.findings_table import print_findings

        print_findings(findings)
    if errors(findings):
        raise typer.Exit(Exit.MISSING_PREREQUISITE)


def _lacks(context: Context) -> tuple[tuple[str, str], ...]:
    """What this machine lacks, which `mesaform up` checks before anything else."""
    from mesaform.provision.prerequisites import find_lacks

    return tuple((item.what, item.fix) for item in find_lacks(context.spec, context.cluster_dir))


def check_account(context: Context, report: Report) -> None:
    """Create the role of spot machines if a pool needs it, and stop on errors of the account.

    On the local cloud only the quick checks are made.

    Raises:
        MissingPrerequisite: `mesaform up` would fail in this account; a line for each error.

    """
    from mesaform.doctor.checks import examine
    from mesaform.doctor.finding import errors

    with stage(report, "Check the account") as under_way:
        is_local = context.spec.target == "local"
        subject = subject_of(context, with_images=not is_local)
        if subject.has_spot:
            _ensure_spot_role(subject)
        findings = examine(subject, quick_only=is_local)
        if failed := errors(findings):
            raise _not_ready(failed)
        under_way.outcome = _summary(findings)


def subject_of(context: Context, *, with_images: bool = True) -> Subject:
    """The subject of the checks: the cluster file, its images, and where its cluster lives.

    `with_images` looks up the images, which only the checks that are not quick need.
    """
    import os

    from mesaform.doctor.subject import Pin, Subject
    from mesaform.provision.deployment import read_deployment
    from mesaform_images.bundle import installed_recipe

    record = read_deployment(context.cluster_dir)
    recipe = installed_recipe()
    images = _images(context.spec) if with_images else {}
    missing = [name for name in context.spec.architectures if name not in images]
    return Subject(
        spec=context.spec,
        images=images,
        pin=Pin(record.account_id, record.region) if record else None,
        builders=tuple(recipe.instance_types[name] for name in missing),
        has_mesos=recipe.engine_source is not None,
        endpoint_url=os.environ.get("AWS_ENDPOINT_URL", ""),
    )


def _images(spec: ClusterSpec) -> dict[Architecture, str]:
    from mesaform.common.errors import CloudError
    from mesaform_images.lookup import images_of, recipe_digest

    recipe = recipe_digest()
    try:
        listed = {name: images_of(recipe, spec.region, name) for name in spec.architectures}
    except CloudError:  # the checks say why
        return {}
    return {name: images[0]["ImageId"] for name, images in listed.items() if images}


def _with_zones(context: Context) -> Context:
    """The context with the zones that `mesaform up` would choose; the checks say if none fit."""
    from contextlib import suppress

    from mesaform.common.errors import MesaformError
    from mesaform.provision.zones import settle

    with suppress(MesaformError):
        return replace(context, spec=settle(context.spec, context.cluster_dir))
    return context


def _ensure_spot_role(subject: Subject) -> None:
    """Create the role; where IAM refuses, the check of the role says what is lacking."""
    from contextlib import suppress

    from mesaform.aws.service_linked_role import ensure_spot_role
    from mesaform.common.errors import CloudError

    with suppress(CloudError):
        ensure_spot_role(subject.region)


def _not_ready(failed: Sequence[Finding]) -> MissingPrerequisite:
    lines = [f"  {item.check}: {item.detail}\n    {item.remedy}" for item in failed]
    return MissingPrerequisite(
        "this account cannot hold the cluster:\n" + "\n".join(lines),
        fix="nothing was created; the whole table: mesaform doctor",
    )


def _summary(findings: Sequence[Finding]) -> str:
    warnings = [item for item in findings if item.level == "warning"]
    if not warnings:
        return f"{len(findings)} checks"
    named = ", ".join(dict.fromkeys(item.check for item in warnings))
    return f"{len(findings)} checks, {len(warnings)} warnings ({named}): mesaform doctor"


def _print_policy(context: Context) -> None:
    from mesaform.doctor.policy import operator_policy
    from mesaform.provision.deployment import read_deployment

    record = read_deployment(context.cluster_dir)
    account_id = record.account_id if record else ACCOUNT_PLACEHOLDER
    typer.echo(json.dumps(operator_policy(context.spec, account_id), indent=2))
