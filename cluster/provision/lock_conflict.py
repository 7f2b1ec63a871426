"""Terraform's refusal to work on a locked state, as the error that this program's own lock gives.

A verb looks at all locks before it starts Terraform; a Terraform that a person starts by hand may
take the lock in between.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

from mesaform.provision.shared_lock import TERRAFORM_SUFFIX, LockNote, SharedBusy

REFUSAL = re.compile(
    r"Error acquiring the state lock.* Path: (?P<path>\S+)"
    r".* Operation: (?:OperationType)?(?P<operation>\w*)"
    r".* Who: (?P<who>\S+).* Created: (?P<created>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)"
)
"""Terraform's diagnostic in one line; the time is in UTC (`statemgr.LockInfo.String`)."""


def lock_conflict(text: str, now: float) -> SharedBusy | None:
    """The error with the lock's holder and age; None for any other error of Terraform.

    Args:
        text: Terraform's error in one line.
        now: seconds since the epoch.

    """
    refusal = REFUSAL.search(text)
    if refusal is None:
        return None
    created = datetime.strptime(refusal["created"], "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC)
    folder, _, name = refusal["path"].rpartition("/")
    holder = f"terraform {refusal['operation'].lower() or 'run'} by {refusal['who']}"
    note = LockNote(name + TERRAFORM_SUFFIX, holder, max(0.0, now - created.timestamp()))
    return SharedBusy((note,), f"s3://{folder}/")
