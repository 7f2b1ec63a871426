"""The list of checks, and the examination of an account by all of them."""

from __future__ import annotations

import time

from mesaform.doctor import (
    bucket,
    disks,
    dry_runs,
    engine,
    identity,
    instance_types,
    internet,
    masters_rights,
    operator_machine,
    quotas,
    region,
    rights,
    spot_role,
)
from mesaform.doctor.finding import Finding
from mesaform.doctor.runner import TIMEOUT_S, Check, run_checks
from mesaform.doctor.subject import Examination, Subject

CHECKS = (
    Check(identity.ACCOUNT, identity.look_at_account, is_quick=True),
    Check(operator_machine.CHECK, operator_machine.look),
    Check(engine.CHECK, engine.look, is_quick=True),
    Check(region.REGION, region.look_at_region, is_quick=True),
    Check(region.ZONES, region.look_at_zones, is_quick=True),
    Check(instance_types.CHECK, instance_types.look, is_quick=True),
    Check(quotas.CHECK, quotas.look_at_vcpus),
    Check(quotas.CHECK, quotas.look_at_network),
    Check(internet.CHECK, internet.look),
    Check(spot_role.CHECK, spot_role.look),
    Check(disks.CHECK, disks.look),
    Check(bucket.CHECK, bucket.look, is_quick=True),
    Check(dry_runs.CHECK, dry_runs.look),
    Check(rights.CHECK, rights.look),
    Check(masters_rights.CHECK, masters_rights.look),
)
"""All checks after that of the identity, in the order of the table."""


def examine(
    subject: Subject, *, quick_only: bool = False, timeout_s: float = TIMEOUT_S
) -> list[Finding]:
    """All findings, that of the identity first. Without an identity it is the only one.

    Args:
        subject: the cluster and its place.
        quick_only: make only the checks that `mesaform up` makes on the local cloud.
        timeout_s: time for all checks together.

    """
    began = time.monotonic()
    caller, finding = identity.identify(subject)
    if caller is None:
        return [finding]
    checks = [check for check in CHECKS if check.is_quick or not quick_only]
    remaining_s = max(0.0, timeout_s - (time.monotonic() - began))
    return [finding, *run_checks(checks, Examination(subject, caller), remaining_s)]
