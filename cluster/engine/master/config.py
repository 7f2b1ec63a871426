"""The master's settings from its environment.

The variables have Mesos' own names, so that one environment configures both engines.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass, field

from mesaform.common.access import AccessDocument
from mesaform.common.durations import parse_mesos_duration_s
from mesaform.common.errors import BadInput
from mesaform.common.json_types import JsonObject
from mesaform.engine.master.authentication import (
    FrameworkAuthenticator,
    authenticator_from,
)
from mesaform.engine.master.authorization import PresentAcls, acls_from
from mesaform.engine.master.state import (
    MAX_COMPLETED_FRAMEWORKS,
    MAX_COMPLETED_TASKS,
    MAX_UNREACHABLE_TASKS,
    Config,
)
from mesaform.http import HttpSettings, http_settings
from mesaform.topology.instance_identity import InstanceVerifier, verifier_from
from mesaform.zookeeper.access import Credentials, read_zk_url

CAPABILITIES = ("AGENT_UPDATE", "AGENT_DRAINING", "QUOTA_V2")
"""MasterInfo.Capability names of the Mesos release whose protocol the engine speaks."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What a master is started with.

    `zk_session_timeout_s` is 4.5 s by default (Mesos: 10 s). The ensemble ends the session of a
    dead leader at most a tick (0.5 s) later, so that another one leads within 5 s.
    `zk_credentials` is the owner of the master's nodes, None where they are open. `verifier`
    decides which agents are taken; None takes every agent.
    """

    ip: str
    port: int
    link_port: int
    hostname: str
    cluster: str
    zk_hosts: str
    zk_path: str
    work_dir: str
    zk_session_timeout_s: float
    core: Config
    http: HttpSettings
    zk_credentials: Credentials | None = None
    authenticator: FrameworkAuthenticator = field(default_factory=FrameworkAuthenticator)
    verifier: InstanceVerifier | None = None


def read_settings(env: Mapping[str, str]) -> Settings:
    """The settings in an environment.

    Raises:
        BadInput: a setting is missing or has another form.

    """
    ip = _required(env, "MESOS_IP", "the address to listen on, such as 127.42.1.10")
    hostname = env.get("MESOS_HOSTNAME") or ip
    http = http_settings(env, ip, hostname)
    document = http.access.file.document if http.access is not None else AccessDocument
    zk = read_zk_url(_required(env, "MESOS_ZK", "zk://host:port,host:port/mesos"))
    core = Config(
        allocation_interval_s=_duration(env, "MESOS_ALLOCATION_INTERVAL", "1secs"),
        ping_interval_s=_duration(env, "MESOS_AGENT_PING_TIMEOUT", "15secs"),
        max_missed_pings=_number(env, "MESOS_MAX_AGENT_PING_TIMEOUTS", "5"),
        reregister_timeout_s=_duration(env, "MESOS_AGENT_REREGISTER_TIMEOUT", "10mins"),
        acls=PresentAcls(acls_from(env), document),
    )
    return Settings(
        ip=ip,
        port=_number(env, "MESOS_PORT", "5050"),
        link_port=_number(env, "MESAFORM_LINK_PORT", "5052"),
        hostname=hostname,
        cluster=env.get("MESOS_CLUSTER") or "",
        zk_hosts=zk.hosts,
        zk_path=zk.path,
        work_dir=env.get("MESOS_WORK_DIR") or "",
        zk_session_timeout_s=_duration(env, "MESOS_ZK_SESSION_TIMEOUT", "4500ms"),
        core=core,
        http=http,
        zk_credentials=zk.credentials,
        authenticator=authenticator_from(env, document),
        verifier=verifier_from(env),
    )


def _required(env: Mapping[str, str], name: str, what: str) -> str:
    value = env.get(name)
    if not value:
        raise BadInput("is not set", where=name, fix=f"set it to {what}")
    return value


def _number(env: Mapping[str, str], name: str, default: str) -> int:
    text = env.get(name) or default
    if not text.isdigit():
        raise BadInput(f"{text!r} is not a number", where=name, fix=f"such as {default}")
    return int(text)


def _duration(env: Mapping[str, str], name: str, default: str) -> float:
    return parse_mesos_duration_s(env.get(name) or default, name)


def master_info(settings: Settings, master_id: str, version: str) -> JsonObject:
    """MasterInfo as Apache Mesos publishes it in ZooKeeper and sends it to schedulers."""
    return {
        "id": master_id,
        "ip": int.from_bytes(socket.inet_aton(settings.ip), "little"),
        "port": settings.port,
        "pid": f"master@{settings.ip}:{settings.port}",
        "hostname": settings.hostname,
        "version": version,
        "address": {"hostname": settings.hostname, "ip": settings.ip, "port": settings.port},
        "capabilities": [{"type": name} for name in CAPABILITIES],
    }


def flags(settings: Settings) -> dict[str, str]:
    """The flags of Mesos that have a meaning here, as in GET_FLAGS and /flags."""
    core, access = settings.core, settings.http.access
    needs_token = str(access is not None and access.is_required).lower()
    return {
        "agent_ping_timeout": f"{core.ping_interval_s:g}secs",
        "agent_reregister_timeout": f"{core.reregister_timeout_s:g}secs",
        "allocation_interval": f"{core.allocation_interval_s:g}secs",
        "allocator": "hierarchical",
        "authenticate_agents": str(settings.verifier is not None).lower(),
        "authenticate_frameworks": "false",
        "authenticate_http_frameworks": str(settings.authenticator.is_required).lower(),
        "authenticate_http_readonly": needs_token,
        "authenticate_http_readwrite": needs_token,
        "cluster": settings.cluster,
        "framework_sorter": "drf",
        "hostname": settings.hostname,
        "ip": settings.ip,
        "max_agent_ping_timeouts": str(core.max_missed_pings),
        "max_completed_frameworks": str(MAX_COMPLETED_FRAMEWORKS),
        "max_completed_tasks_per_framework": str(MAX_COMPLETED_TASKS),
        "max_unreachable_tasks_per_framework": str(MAX_UNREACHABLE_TASKS),
        "min_allocatable_resources": "cpus:0.01|mem:32",
        "port": str(settings.port),
        "publish_per_framework_metrics": "true",
        "registry": "zookeeper",
        "role_sorter": "drf",
        "version": "false",
        "work_dir": settings.work_dir,
        "zk": f"zk://{settings.zk_hosts}{settings.zk_path}",
        "zk_session_timeout": f"{settings.zk_session_timeout_s:g}secs",
    }
