"""Whether IAM reads the masters' policy as it is meant, before a master has it."""

from __future__ import annotations

from mesaform.aws import policy_simulation
from mesaform.common.errors import CloudError
from mesaform.doctor.finding import Finding, error, ok, warning
from mesaform.doctor.policy import questions
from mesaform.doctor.subject import Examination
from mesaform.topology import iam

CHECK = "masters' rights"


def look(examination: Examination) -> list[Finding]:
    """Simulate the policy of the masters' role for each action that it is to allow."""
    spec = examination.spec
    types = [name for pool in spec.agents for name in pool.types]
    document = iam.master_document(
        spec.name,
        spec.region,
        examination.caller.account_id,
        types,
        iam_path=spec.account.iam_path,
        kms_key=spec.account.kms_key,
    )
    asked = list(questions(document))
    try:
        denials = policy_simulation.denials_of_policy(examination.region, document, asked)
    except CloudError as fault:
        remedy = "allow iam:SimulateCustomPolicy; mesaform up works without it"
        return [warning(CHECK, f"not checked: {fault.what}", remedy)]
    if not denials:
        return [ok(CHECK, f"{sum(len(item.actions) for item in asked)} actions are allowed")]
    named = ", ".join(sorted({denial.action for denial in denials}))
    return [error(CHECK, f"the policy does not allow {named}", "report this line as a fault")]
