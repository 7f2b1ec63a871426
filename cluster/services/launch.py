"""An instance's task as the wire has it: the command, its environment and its ports. Pure."""

from __future__ import annotations

import re

from mesaform.mesos.messages import (
    CommandInfo,
    DurationInfo,
    Environment,
    EnvVariable,
    KillPolicy,
    Label,
    Labels,
    TaskInfo,
    Uri,
    ident,
)
from mesaform.services.matching import Fit
from mesaform.services.model import App, HealthCheck, Instance

NEVER = 2**31 - 1


def task_id_for(app_id: str, unique: str) -> str:
    """A task id in Marathon's form: `web_api.instance-<unique>._app.1`; it is valid in file names."""
    return f"{app_id.strip('/').replace('/', '_')}.instance-{unique}._app.1"


def task_name(app_id: str) -> str:
    """`/web/api` is `api.web`, as Mesos' DNS-like names go."""
    return ".".join(reversed(app_id.strip("/").split("/")))


def task_info(app: App, instance: Instance, fit: Fit) -> TaskInfo:
    """What to launch."""
    grace_s = app.task_kill_grace_period_seconds
    return TaskInfo(
        name=task_name(app.id),
        task_id=ident(instance.task_id),
        agent_id=ident(instance.agent_id),
        resources=fit.wire(),
        command=_command(app, instance),
        kill_policy=None
        if grace_s is None
        else KillPolicy(grace_period=DurationInfo(nanoseconds=round(grace_s * 1e9))),
        labels=Labels(labels=[Label(key=key, value=value) for key, value in app.labels.items()])
        if app.labels
        else None,
        discovery=_discovery(app, instance),
        health_check=_health_check(app.health_checks[0], instance) if app.health_checks else None,
    )


def environment(app: App, instance: Instance) -> dict[str, str]:
    """What an instance finds in its environment; a variable that the app sets itself wins."""
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
    for index, (port, definition) in enumerate(
        zip(instance.ports, app.port_definitions, strict=True)
    ):
        env[f"PORT{index}"] = str(port)
        if definition.port:
            env[f"PORT_{definition.port}"] = str(port)
        if definition.name:
            env[f"PORT_{_variable(definition.name)}"] = str(port)
    if instance.ports:
        env["PORT"] = str(instance.ports[0])
        env["PORTS"] = ",".join(map(str, instance.ports))
    return {**env, **app.env}


def _variable(text: str) -> str:
    return re.sub(r"[^A-Z0-9_]", "_", text.upper())


def _command(app: App, instance: Instance) -> CommandInfo:
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
            user=app.user,
            uris=uris,
            environment=env,
        )
    return CommandInfo(shell=True, value=app.cmd, user=app.user, uris=uris, environment=env)  # noqa: S604  the user asks for one


def _health_check(check: HealthCheck, instance: Instance) -> dict[str, object]:
    """The v1 HealthCheck. Whatever never kills in Marathon does so here only after more failures than ever happen."""
    timings: dict[str, object] = {
        "delay_seconds": check.delay_seconds,
        "interval_seconds": check.interval_seconds,
        "timeout_seconds": check.timeout_seconds,
        "grace_period_seconds": check.grace_period_seconds,
        "consecutive_failures": check.max_consecutive_failures or NEVER,
    }
    if check.command is not None and check.kind == "COMMAND":
        return {
            "type": "COMMAND",
            "command": {"shell": True, "value": check.command.value},
            **timings,
        }
    port = instance.ports[check.port_index or 0] if check.port is None else check.port
    if check.kind == "TCP":
        return {"type": "TCP", "tcp": {"port": port}, **timings}
    return {
        "type": "HTTP",
        "http": {"scheme": check.kind.lower(), "port": port, "path": check.path or "/"},
        **timings,
    }


def _discovery(app: App, instance: Instance) -> dict[str, object]:
    ports = [
        {
            "number": port,
            "protocol": definition.protocol,
            **({"name": definition.name} if definition.name else {}),
        }
        for port, definition in zip(instance.ports, app.port_definitions, strict=True)
    ]
    return {"visibility": "FRAMEWORK", "name": task_name(app.id), "ports": {"ports": ports}}
