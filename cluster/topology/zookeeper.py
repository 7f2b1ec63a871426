"""Paths of the cluster's programs in ZooKeeper, and the connection string of its members."""

from __future__ import annotations

from collections.abc import Sequence

from mesaform.topology.ports import Port

ZK_ENGINE_PATH = "/mesos"
ZK_SERVICES_PATH = "/marathon"
ZK_AUTOSCALER_PATH = "/mesaform/autoscaler"
ZK_LEASE = "lease"
"""Node below the autoscaler's path that its leader renews (`user_data.Lease`)."""
ZK_SHUTDOWN_REPORTS = "shutdown-reports"
"""Node below the autoscaler's path: one `user_data.ShutdownReport` per machine that terminated
itself, by instance id."""

ZK_LEGACY_SHUTDOWN_REPORTS = "farewells"
"""The node that older images write to. Leaders read it as well: during an upgrade old agents run
beside new masters."""


def zk_url(addresses: Sequence[str], path: str) -> str:
    """Return `zk://a:2181,b:2181/path`, the form that Mesos and Marathon take."""
    return "zk://" + ",".join(f"{address}:{Port.ZOOKEEPER_CLIENT}" for address in addresses) + path
