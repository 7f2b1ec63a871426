"""Paths of the cluster's programs in ZooKeeper, their readers, and the members' connection string.

The masters share one user. Its password is derived from the cluster's secret, which only masters
get (docs/adr/0027-identities.md).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
from collections.abc import Sequence

from mesaform.topology.ports import Port

ZK_ENGINE_PATH = "/mesos"
ZK_SERVICES_PATH = "/marathon"
ZK_AUTOSCALER_PATH = "/mesaform/autoscaler"
ZK_AUTOSCALER_STATE = f"{ZK_AUTOSCALER_PATH}/state"
"""The record of the planner's state."""
ZK_RESTORED_STATE = "restored-state"
"""Node below the autoscaler's path: such a record from a snapshot. The next term takes it over."""

ZK_AUTOSCALER_RESTORED = f"{ZK_AUTOSCALER_PATH}/{ZK_RESTORED_STATE}"
ZK_LEASE = "lease"
"""Node below the autoscaler's path that its leader renews (`user_data.Lease`)."""
ZK_SHUTDOWN_REPORTS = "shutdown-reports"
"""Node below the autoscaler's path: one `user_data.ShutdownReport` per machine that terminated
itself, by instance id."""

ZK_LEGACY_SHUTDOWN_REPORTS = "farewells"
"""The node that older images write to. Leaders read it as well: during an upgrade old agents run
beside new masters."""

ZK_USER = "mesaform"
"""The masters' user. It owns every node."""
ZK_PURPOSE = "zookeeper"
"""The purpose of its password (`derived_secret`)."""
AGENT_PURPOSE = "agents of apache mesos"
"""The purpose of the secret of Apache Mesos' agents."""
SUPERUSER = "super"
"""The user that ZooKeeper lets pass every list (administrator's guide, `superDigest`)."""

_PUBLIC = re.compile(rf"/|{ZK_ENGINE_PATH}(/(json\.)?info_\d*)?|{ZK_AUTOSCALER_PATH}/{ZK_LEASE}")


def is_public(path: str) -> bool:
    """Whether everyone may read a node.

    Public are the way to the leading master and the agents' lease. Everything else is the masters'
    alone: registry, apps, launch intents, planner state.
    """
    return _PUBLIC.fullmatch(path) is not None


def derived_secret(cluster_secret: str, purpose: str) -> str:
    """A secret for one purpose: HMAC-SHA256 of the purpose by the cluster's secret, in hex."""
    return hmac.new(cluster_secret.encode(), purpose.encode(), hashlib.sha256).hexdigest()


def superuser_password(password: str) -> str:
    """The superuser's password for the password of `ZK_USER`."""
    return derived_secret(password, "zookeeper superuser")


def super_digest(password: str) -> str:
    """The value of ZooKeeper's setting `superDigest` for the password of `ZK_USER`."""
    login = f"{SUPERUSER}:{superuser_password(password)}"
    digest = hashlib.sha1(login.encode(), usedforsecurity=False).digest()
    return f"{SUPERUSER}:{base64.b64encode(digest).decode()}"


def zk_url(addresses: Sequence[str], path: str, password: str = "") -> str:
    """Return `zk://a:2181,b:2181/path`, the form that Mesos and Marathon take.

    With a password the URL logs in as `ZK_USER`.
    """
    login = f"{ZK_USER}:{password}@" if password else ""
    hosts = ",".join(f"{address}:{Port.ZOOKEEPER_CLIENT}" for address in addresses)
    return f"zk://{login}{hosts}{path}"
