"""The Mesos task of an instance: command, environment, ports, health check. No I/O.

Task ids, task names and environment variables have the form of Marathon 1.11
(docs/task-environment-vars.md of its repository).
"""

from __future__ import annotations

import re

import msgspec

from mesaform.mesos.messages import (
    CommandInfo,
    DiscoveryInfo,
    DiscoveryPort,
    DiscoveryPorts,
    DurationInfo,
    Environment,
    EnvVariable,
    HttpCheckInfo,
    KillPolicy,
    Label,
    Labels,
    TaskInfo,
    TcpCheckInfo,
    Uri,
    ident,
)
from mesaform.mesos.messages import HealthCheck as MesosHealthCheck
from mesaform.placement.constraints import CONFIG_LABEL
from mesaform.services.matching import Fit
from mesaform.services.model import App, HealthCheck, Instance

MAX_FAILURES = 2**31 - 1
"""Stands for "never kill": more failures in a row than ever happen."""


def task_id_for(app_id: str, task_uuid: str) -> str:
    """A task id in Marathon's form: `web_api.instance-<uuid>._app.1`; it is valid in file names."""
    return f"{app_id.strip('/').replace('/', '_')}.instance-{task_uuid}._app.1"


def app_id_of(task_id: str) -> str:
    """The app of a task whose id has the form of `task_id_for`; a part of an id has no `_`."""
    name, mark, _ = task_id.partition(".instance-")
    return "/" + name.replace("_", "/") if mark else ""


def task_name(app_id: str) -> str:
    """The task's name: `api.web` for the app `/web/api`, as Mesos-DNS expects it."""
    return ".".join(reversed(app_id.strip("/").split("/")))


def task_info(app: App, instance: Instance, fit: Fit, default_user: str = "") -> TaskInfo:
    """The task to launch for this instance. `default_user` runs apps that name no user."""
    return TaskInfo(
        name=task_name(app.id),
        task_id=ident(instance.task_id),
        agent_id=ident(instance.agent_id),
        resources=fit.wire(),
        command=_command(app, instance, app.user or default_user or None),
        kill_policy=_kill_policy(app),
        labels=_labels(app),
        discovery=_discovery(app, instance),
        health_check=_health_check(app.health_checks[0], instance) if app.health_checks else None,
    )


def _kill_policy(app: App) -> KillPolicy | None:
    grace_s = app.task_kill_grace_period_seconds
    if grace_s is None:
        return None
    return KillPolicy(grace_period=DurationInfo(nanoseconds=round(grace_s * 1e9)))


def _labels(app: App) -> Labels:
    """The app's labels, and its configuration: constraints count the instances of one."""
    labels = {**app.labels, CONFIG_LABEL: app.config_version}
    return Labels(labels=[Label(key=key, value=value) for key, value in labels.items()])


def environment(app: App, instance: Instance) -> dict[str, str]:
    """The environment of an instance; the app's own variables override those of Marathon."""
    env = {
        "HOST": instance.host,
        "MESOS_TASK_ID": instance.task_id,
        "MARATHON_APP_ID": app.id,
        "MARATHON_APP_VERSION": app.version,
        "MARATHON_APP_RESOURCE_CPUS": f"{app.cpus}",
        "MARATHON_APP_RESOURCE_MEM": f"{app.mem}",
        "MARATHON_APP_RESOURCE_DISK": f"{app.disk}",
        "MARATHON_APP_RESOURCE_GPUS": f"{app.gpus}",
        "MARATHON_APP_LABELS": " ".join(_variable(key) for key in sorted(app.labels)),
    }
    env.update({f"MARATHON_APP_LABEL_{_variable(key)}": value for key, value in app.labels.items()})
    return {**env, **_port_variables(app, instance), **app.env}


def _port_variables(app: App, instance: Instance) -> dict[str, str]:
    """Each host port by its index, its service port and its name; the first one as `PORT`."""
    variables: dict[str, str] = {}
    definitions = zip(instance.ports, app.port_definitions, strict=True)
    for index, (port, definition) in enumerate(definitions):
        variables[f"PORT{index}"] = str(port)
        if definition.port:
            variables[f"PORT_{definition.port}"] = str(port)
        if definition.name:
            variables[f"PORT_{_variable(definition.name)}"] = str(port)
    if instance.ports:
        variables["PORT"] = str(instance.ports[0])
        variables["PORTS"] = ",".join(map(str, instance.ports))
    return variables


def _variable(text: str) -> str:
    """Text as part of a variable's name: upper case, other characters replaced by `_`."""
    return re.sub(r"[^A-Z0-9_]", "_", text.upper())


def _command(app: App, instance: Instance, user: str | None) -> CommandInfo:
    variables = [
        EnvVariable(name=name, value=value) for name, value in environment(app, instance).items()
    ]
    env = Environment(variables=variables)
    uris = [
        Uri(
            value=item.uri,
            executable=item.executable,
            extract=item.extract,
            cache=item.cache,
            output_file=item.dest_path,
        )
        for item in app.fetch
    ]
    if app.args is not None:
        return CommandInfo(
            shell=False,
            value=app.args[0],
            arguments=app.args,
            user=user,
            uris=uris,
            environment=env,
        )
    return CommandInfo(  # noqa: S604 - Marathon runs `cmd` in a shell
        shell=True,
        value=app.cmd,
        user=user,
        uris=uris,
        environment=env,
    )


def _health_check(check: HealthCheck, instance: Instance) -> MesosHealthCheck:
    """The v1 HealthCheck of a check. Mesos has no "never kill", see `MAX_FAILURES`."""
    timings = MesosHealthCheck(
        delay_seconds=check.delay_seconds,
        interval_seconds=check.interval_seconds,
        timeout_seconds=check.timeout_seconds,
        grace_period_seconds=check.grace_period_seconds,
        consecutive_failures=check.max_consecutive_failures or MAX_FAILURES,
    )
    replace = msgspec.structs.replace
    if check.command is not None and check.kind == "COMMAND":
        command = CommandInfo(shell=True, value=check.command.value)  # noqa: S604 - a shell line
        return replace(timings, type="COMMAND", command=command)
    port = instance.ports[check.port_index or 0] if check.port is None else check.port
    if check.kind == "TCP":
        return replace(timings, type="TCP", tcp=TcpCheckInfo(port=port))
    http = HttpCheckInfo(scheme=check.kind.lower(), port=port, path=check.path or "/")
    return replace(timings, type="HTTP", http=http)


def _discovery(app: App, instance: Instance) -> DiscoveryInfo:
    ports = [
        DiscoveryPort(number=port, protocol=definition.protocol, name=definition.name or None)
        for port, definition in zip(instance.ports, app.port_definitions, strict=True)
    ]
    return DiscoveryInfo(
        visibility="FRAMEWORK", name=task_name(app.id), ports=DiscoveryPorts(ports=ports)
    )
