"""What is missing on the operator's machine: programs, and for local machines rights and images."""

from __future__ import annotations

from collections.abc import Iterable

from mesaform.doctor.finding import Finding, error, ok
from mesaform.doctor.subject import Examination

CHECK = "this machine"


def look(examination: Examination) -> Iterable[Finding]:
    """A finding for each missing thing that the caller of the doctor has seen. No call."""
    lacks = examination.subject.lacks
    if lacks is None:
        return
    for what, remedy in lacks:
        yield error(CHECK, what, remedy)
    if not lacks:
        spec = examination.spec
        yield ok(CHECK, f"has what {_machines(spec.target, spec.local.machines)} need")


def _machines(target: str, kind: str) -> str:
    return f"local machines as {kind}" if target == "local" else "clusters on AWS"
