"""The operator's minimal policy, from the files of this package, and questions about it. Pure.

The files have the placeholders ACCOUNT_ID, REGION and PARTITION. A test derives their actions from
the calls of the code and from the resources of the stacks.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from importlib import resources
from typing import TYPE_CHECKING

from mesaform.aws.policy_simulation import Question
from mesaform.topology.iam import Document, Statement, disk_key_statements, partition

if TYPE_CHECKING:
    from mesaform.config.schema import ClusterSpec

BASE, SERVICES = "operator-policy.json", "operator-policy-services.json"
NETWORK = "operator-policy-network.json"
_PATHED = ("role", "instance-profile", "policy")
"""Resources of IAM whose names have a path."""

EXAMPLE = "mesaform-example"
"""The name that stands for any name of the product in a question to the simulator."""


def operator_policy(spec: ClusterSpec, account_id: str) -> Document:
    """The policy that an operator of this cluster needs, in its account and region.

    Statements of one name are one rule in several files; they differ in their actions alone.
    """
    values = {
        "PARTITION": partition(spec.region),
        "ACCOUNT_ID": account_id,
        "REGION": spec.region,
        **{f":{kind}/mesaform-": f":{kind}{spec.account.iam_path}mesaform-" for kind in _PATHED},
    }
    merged: dict[str, Statement] = {}
    for name in policy_files(spec):
        for statement in _read(name, values)["Statement"]:
            first = merged.setdefault(statement["Sid"], {**statement, "Action": []})
            first["Action"] = [*_listed(first["Action"]), *_listed(statement["Action"])]
    statements = list(merged.values())
    if spec.account.kms_key:
        statements += disk_key_statements(spec.account.kms_key, spec.region)
    return {"Version": "2012-10-17", "Statement": statements}


def policy_files(spec: ClusterSpec) -> tuple[str, ...]:
    """The files of this package whose rights a cluster needs."""
    needed = (BASE, SERVICES)
    return needed if _has_plain_network(spec) else (*needed, NETWORK)


def _has_plain_network(spec: ClusterSpec) -> bool:
    """Whether the network has no option that makes further resources."""
    return set(spec.network.model_dump(exclude_defaults=True)) <= PLAIN_FIELDS


PLAIN_FIELDS = frozenset({"cidr", "zones", "operator_cidrs", "open_to_the_world"})
"""Fields of `network` that make no resources of further types."""


def _read(name: str, values: Mapping[str, str]) -> Document:
    text = resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
    for placeholder, value in values.items():
        text = text.replace(placeholder, value)
    document: Document = json.loads(text)
    return document


def questions(document: Document) -> Iterator[Question]:
    """What to ask the simulator, so that it answers "allowed" to who has these rights.

    Each action is asked about one resource of its own kind, in the context that the conditions
    demand.
    """
    for statement in document["Statement"]:
        by_resource: dict[str, list[str]] = {}
        patterns = _listed(statement["Resource"])
        for action in _listed(statement["Action"]):
            by_resource.setdefault(example(action, patterns), []).append(action)
        for resource, actions in by_resource.items():
            yield Question(tuple(actions), (resource,), _context(statement))


def example(action: str, patterns: Iterable[str]) -> str:
    """A resource of the kind that an action uses, which one of the patterns matches."""
    chosen = _of_own_kind(action, list(patterns))[0]
    return chosen if chosen == "*" else chosen.replace("mesaform-*", EXAMPLE).replace("*", EXAMPLE)


def _of_own_kind(action: str, patterns: list[str]) -> list[str]:
    """The patterns of the action's kind and service, as far as they differ by these."""
    kind = next((kind for hint, kind in _KINDS if hint in action), "")
    of_kind = [pattern for pattern in patterns if kind in pattern]
    return _of_own_service(action, of_kind or patterns)


def _of_own_service(action: str, patterns: list[str]) -> list[str]:
    service = action.partition(":")[0]
    return [pattern for pattern in patterns if pattern.split(":")[2:3] == [service]] or patterns


_KINDS = (
    ("InstanceProfile", ":instance-profile"),
    ("RolePolic", ":role"),
    ("RolePermissions", ":role"),
    ("AssumeRolePolicy", ":role"),
    ("Policy", ":policy"),
    ("Policies", ":policy"),
    ("Object", "/*"),
)
"""Parts of actions' names, and of the resources that such actions use."""


def _context(statement: Statement) -> dict[str, tuple[str, ...]]:
    """Values under which the conditions of a statement hold."""
    values: dict[str, tuple[str, ...]] = {}
    for operator, keys in statement.get("Condition", {}).items():
        for key, value in keys.items():
            listed = tuple(_listed(value))
            is_present = operator == "Null"
            values[key] = ("terraform",) if is_present else (listed[0].replace("*", ""),)
    return values


def _listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else list(value)
