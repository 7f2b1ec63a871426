"""IAM's policy simulator: what a caller, or a policy that nobody has yet, may do.

The simulator evaluates identity policies, permissions boundaries and service control policies.
It makes none of the calls.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from mesaform.aws.client import client
from mesaform.aws.resources.kind import Raw, call, pages
from mesaform.common.errors import CloudError

BATCH = 40
"""Actions in one call."""


@dataclass(frozen=True, slots=True)
class Question:
    """Actions on resources, in a context. `context` maps keys such as `aws:RequestedRegion`."""

    actions: tuple[str, ...]
    resources: tuple[str, ...]
    context: Mapping[str, Sequence[str]]


@dataclass(frozen=True, slots=True)
class Denial:
    """An action that is not allowed. `source` names what denies it, if IAM says so."""

    action: str
    resource: str
    source: str


def denials_of_principal(region: str, arn: str, questions: Sequence[Question]) -> list[Denial]:
    """What a user or role may not do.

    Raises:
        CloudError: the caller may not ask, or IAM did not answer.

    """
    given = {"PolicySourceArn": arn}
    return _ask_all(region, "simulate_principal_policy", questions, given)


def denials_of_policy(region: str, document: object, questions: Sequence[Question]) -> list[Denial]:
    """What a policy document does not allow.

    Raises:
        CloudError: the caller may not ask, or IAM did not answer.

    """
    given = {"PolicyInputList": [json.dumps(document)]}
    return _ask_all(region, "simulate_custom_policy", questions, given)


def policy_source(region: str, arn: str) -> str:
    """The user or role behind a caller's ARN; empty if IAM cannot simulate it.

    The ARN of an assumed role lacks the role's path, so IAM is asked for it.
    """
    kind, _, rest = arn.rsplit(":", maxsplit=1)[-1].partition("/")
    if kind == "user":
        return arn
    if kind != "assumed-role":
        return ""
    name = rest.partition("/")[0]
    try:
        return str(
            call(client("iam", region), "get_role", f"role {name}", RoleName=name)["Role"]["Arn"]
        )
    except CloudError:
        account, part = arn.split(":")[4], arn.split(":")[1]
        return f"arn:{part}:iam::{account}:role/{name}"


def _ask_all(
    region: str, operation: str, questions: Sequence[Question], given: Mapping[str, object]
) -> list[Denial]:
    """Ask one question after the other: IAM limits the rate of the simulator's calls."""
    return [denial for question in questions for denial in _ask(region, operation, question, given)]


def _ask(
    region: str, operation: str, question: Question, given: Mapping[str, object]
) -> Iterator[Denial]:
    iam = client("iam", region)
    context = [
        {"ContextKeyName": key, "ContextKeyValues": list(values), "ContextKeyType": "stringList"}
        for key, values in question.context.items()
    ]
    for start in range(0, len(question.actions), BATCH):
        answers = pages(
            iam,
            operation,
            f"iam {operation}",
            ActionNames=list(question.actions[start : start + BATCH]),
            ResourceArns=list(question.resources),
            ContextEntries=context,
            **given,
        )
        for answer in answers:
            yield from (
                _denial(result)
                for result in answer["EvaluationResults"]
                if result["EvalDecision"] != "allowed"
            )


def _denial(result: Raw) -> Denial:
    organization = result.get("OrganizationsDecisionDetail", {})
    boundary = result.get("PermissionsBoundaryDecisionDetail", {})
    source = "its policies"
    if organization.get("AllowedByOrganizations") is False:
        source = "a service control policy"
    elif boundary.get("AllowedByPermissionsBoundary") is False:
        source = "its permissions boundary"
    elif result["EvalDecision"] == "explicitDeny":
        source = "an explicit deny"
    return Denial(result["EvalActionName"], str(result.get("EvalResourceName", "*")), source)
