"""The access document that a cluster's spec asks for: tokens, secrets and Mesos' ACLs. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from mesaform.common.access import AccessDocument, FrameworkCredential

if TYPE_CHECKING:
    from mesaform.config.schema import ClusterSpec

NO_ROOT: dict[str, object] = {"principals": {"type": "NONE"}, "users": {"values": ["root"]}}
"""The rule of `run_tasks` with which nobody runs tasks as root."""

_NOBODY: dict[str, object] = {"type": "NONE"}
_EVERYTHING: dict[str, object] = {"type": "ANY"}
AGENT_ACLS: dict[str, list[dict[str, object]]] = {
    "launch_standalone_containers": [{"principals": _NOBODY, "users": _EVERYTHING}],
    "modify_resource_provider_configs": [
        {"principals": _NOBODY, "resource_providers": _EVERYTHING}
    ],
    "prune_images": [{"principals": _NOBODY, "images": _EVERYTHING}],
    "set_log_level": [{"principals": _NOBODY, "level": _EVERYTHING}],
}
"""What nobody may ask an agent of Apache Mesos for.

Its API has no credentials, since executors need it without TLS, so that each task can call it. A
container without a parent runs as the agent's user, root (Mesos, `authorization/acls.proto`).
"""
NO_ROOT_CONTAINERS: dict[str, list[dict[str, object]]] = {
    "launch_nested_containers_as_user": [NO_ROOT],
    "launch_nested_container_sessions_as_user": [NO_ROOT],
}
"""With these nobody starts a container as root inside that of a task."""

AGENT_PRINCIPAL = "mesaform-agent"
"""The principal of Apache Mesos' agents."""
ONLY_AGENTS: list[dict[str, object]] = [
    {"principals": {"values": [AGENT_PRINCIPAL]}, "agents": {"type": "ANY"}},
    {"principals": {"type": "ANY"}, "agents": {"type": "NONE"}},
]
"""The rules of `register_agents` with which no other principal registers an agent."""


def settled(
    current: AccessDocument | None, spec: ClusterSpec, draw: Callable[[], str]
) -> AccessDocument:
    """The document of a spec. Tokens and secrets that exist stay as they are.

    Args:
        current: the stored document.
        spec: the cluster.
        draw: gives a new random secret.

    """
    known = current or AccessDocument()
    secrets = {item.principal: item.secret for item in known.credentials}
    names = [item.principal for item in spec.access.frameworks]
    return AccessDocument(
        known.tokens or (draw(),),
        tuple(FrameworkCredential(name, secrets.get(name) or draw()) for name in names),
        acls_of(spec),
    )


def acls_of(spec: ClusterSpec) -> dict[str, object]:
    """Mesos' ACLs of a spec: what each principal may do, and what nobody may.

    Rules apply in order; the first that matches decides. A call that no rule matches is allowed.
    """
    root = [] if spec.tasks.allow_root else [NO_ROOT]
    rules: dict[str, list[dict[str, object]]] = {
        "register_frameworks": list(_limits(spec, "roles")),
        "run_tasks": [*root, *_limits(spec, "users")],
        "register_agents": ONLY_AGENTS if spec.engine == "mesos" else [],
    }
    return {name: [*items] for name, items in rules.items() if items}


def _limits(spec: ClusterSpec, what: str) -> Iterator[dict[str, object]]:
    """Two rules for each principal with a list: what it may use, and nothing else."""
    for item in spec.access.frameworks:
        allowed: list[object] = [*(item.roles if what == "roles" else item.users)]
        if allowed:
            principal: dict[str, object] = {"values": [item.principal]}
            yield {"principals": principal, what: {"values": allowed}}
            yield {"principals": principal, what: {"type": "NONE"}}
