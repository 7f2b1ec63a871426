"""Whether the caller may make every call, and whether the masters' policy allows theirs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mesaform.aws import policy_simulation
from mesaform.aws.policy_simulation import Denial
from mesaform.common.errors import CloudError
from mesaform.doctor.finding import Finding, error, ok, warning
from mesaform.doctor.policy import operator_policy, questions
from mesaform.doctor.subject import Examination

CHECK = "rights"
NAMED_AT_MOST = 6


def look(examination: Examination) -> list[Finding]:
    """Ask IAM's simulator about every action of the operator's policy."""
    arn = examination.caller.arn
    if arn.endswith(":root"):
        return [warning(CHECK, "the root user may do everything", "use a role with fewer rights")]
    source = policy_simulation.policy_source(examination.region, arn)
    if not source:
        remedy = "sign in as a user or a role"
        return [warning(CHECK, f"not checked: IAM cannot simulate {arn}", remedy)]
    asked = list(questions(operator_policy(examination.spec, examination.caller.account_id)))
    total = sum(len(question.actions) for question in asked)
    try:
        denials = policy_simulation.denials_of_principal(examination.region, source, asked)
    except CloudError as fault:
        remedy = "allow iam:SimulatePrincipalPolicy, or compare with mesaform doctor --policy"
        return [warning(CHECK, f"not checked: {fault.what}", remedy)]
    return list(assess(denials, total))


def assess(denials: Sequence[Denial], total: int) -> Iterable[Finding]:
    """The findings about what is denied, by what denies it. Pure."""
    by_source: dict[str, list[str]] = {}
    for denial in denials:
        by_source.setdefault(denial.source, []).append(denial.action)
    for source, actions in by_source.items():
        unique = sorted(set(actions))
        more = len(unique) - NAMED_AT_MOST
        named = ", ".join(unique[:NAMED_AT_MOST]) + (f" and {more} more" if more > 0 else "")
        remedy = "allow them; mesaform doctor --policy prints the whole policy"
        yield error(CHECK, f"denied by {source}: {named}", remedy)
    if not denials:
        yield ok(CHECK, f"{total} actions are allowed (simulated)")
