"""Parse the JSON of an app definition into an `App`, with all of its problems at once. No I/O.

Field names, defaults and checks are those of Marathon 1.11, with the limits of `definition_limits`.
Fields that this server does not implement or does not know are refused, unless they ask for
nothing.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeAlias

import msgspec
from msgspec.structs import replace

from mesaform.placement.constraints import problem_with
from mesaform.placement.task_labels import read_labels
from mesaform.services import definition_limits
from mesaform.services.definition_limits import Problem
from mesaform.services.model import (
    MAX_INSTANCES,
    MAX_PORT,
    ROLE,
    App,
    CommandCheck,
    HealthCheck,
    PortDefinition,
    UnreachableStrategy,
)

FIRST_SERVICE_PORT, LAST_SERVICE_PORT = 10000, 20000
"""Range of assigned service ports; Marathon's `local_port_min` and `local_port_max`."""

_NAME = "([a-z0-9]|[a-z0-9][a-z0-9-]*[a-z0-9])"
SEGMENT = re.compile(rf"({_NAME}\.)*{_NAME}")
"""One part of an app's id between slashes."""

_NAME_PROBLEM = (
    "{segment!r} is not a name: use lower-case letters, digits, and hyphens or dots between them"
)

READ_ONLY = frozenset(
    {
        "version",
        "versionInfo",
        "tasks",
        "tasksStaged",
        "tasksRunning",
        "tasksHealthy",
        "tasksUnhealthy",
        "deployments",
        "lastTaskFailure",
        "taskStats",
        "readinessCheckResults",
    }
)
"""Fields of answers that clients send back; they are ignored."""

UNSUPPORTED = {
    "container": "apps run as plain processes here; give cmd or args",
    "dependencies": "apps are started without an order",
    "executor": "only the command executor is available",
    "ipAddress": "apps use their host's network",
    "networks": "apps use their host's network",
    "readinessChecks": "give a health check instead",
    "residency": "there are no persistent volumes",
    "secrets": "there is no store of secrets",
    "taskKillOrder": "use killSelection",
    "tty": "there is no terminal",
    "volumes": "there are no volumes",
}
"""Marathon's fields that this server does not implement, with the reason for the author."""


def _is_default_networks(value: object) -> bool:
    return value == [{"mode": "host"}]


def _is_default_container(value: object) -> bool:
    if not isinstance(value, dict):
        return False
    return not any(part for name, part in value.items() if (name, part) != ("type", "MESOS"))


def _is_default_executor(value: object) -> bool:
    return value == "//cmd"


_IS_DEFAULT: dict[str, Callable[[object], bool]] = {
    "networks": _is_default_networks,
    "container": _is_default_container,
    "executor": _is_default_executor,
}
"""Values of unsupported fields that ask for nothing, so that they are accepted."""

_LEGACY_FIELDS = ("ports", "uris")
_FIELDS = {
    field.encode_name: field.type
    for field in msgspec.structs.fields(App)
    if field.name not in ("version", "config_version")
}

Problems: TypeAlias = dict[str, list[str]]
"""Problems by JSON path."""


class InvalidApp(Exception):
    """The definition cannot be used. `problems` maps JSON paths such as `/cpus` to problems."""

    def __init__(self, problems: Problems) -> None:
        super().__init__("the app definition is not valid")
        self.problems = problems


def canonical_id(app_id: str) -> str:
    """An app's id as an absolute path: `web/api` is `/web/api`."""
    return "/" + app_id.strip("/")


def parse(
    body: object,
    *,
    base: App | None = None,
    app_id: str | None = None,
    taken_ports: Iterable[int] = (),
) -> App:
    """Return the app that a decoded JSON body defines.

    Args:
        body: the decoded body.
        base: the app to change; fields that are not in `body` keep its values.
        app_id: the id in the request's path; `body` may repeat but not contradict it.
        taken_ports: service ports of other apps, which are not assigned again.

    Raises:
        InvalidApp: with every problem.

    """
    if not isinstance(body, dict):
        raise InvalidApp({"/": ["an app is a JSON object"]})
    fields = _supported_fields(body)
    problems = _unsupported_problems(body)
    known = (*_FIELDS, *_LEGACY_FIELDS, *UNSUPPORTED, *READ_ONLY)
    for path, problem in definition_limits.unknown_fields(body, known):
        problems.setdefault(path, []).append(problem)
    values = _convert(fields, problems)
    given_id = values.get("id", None if base is None else base.id)
    values["id"] = _resolve_id(given_id, app_id, problems)
    if problems:
        raise InvalidApp(problems)
    start = App(id="", port_definitions=[PortDefinition()]) if base is None else base
    app = replace(start, **_exclusive(values))
    _check(app, problems)
    if problems:
        raise InvalidApp(problems)
    return _with_service_ports(app, frozenset(taken_ports))


def _supported_fields(body: Mapping[str, object]) -> dict[str, object]:
    """The known fields, legacy ones under their present names."""
    names = (*_FIELDS, *_LEGACY_FIELDS)
    fields = {name: value for name, value in body.items() if name in names}
    _upgrade(fields, "ports", "portDefinitions", _port_definition)
    _upgrade(fields, "uris", "fetch", _fetch)
    return fields


def _port_definition(port: object) -> object:
    return {"port": port} if isinstance(port, int) else port


def _fetch(uri: object) -> object:
    return {"uri": uri} if isinstance(uri, str) else uri


def _upgrade(
    fields: dict[str, object], legacy: str, present: str, convert: Callable[[object], object]
) -> None:
    """Replace a legacy field by its successor; the successor wins unless it is empty."""
    if legacy not in fields:
        return
    value = fields.pop(legacy)
    if fields.get(present) is None or (value and not fields[present]):
        fields[present] = [convert(item) for item in value] if isinstance(value, list) else value


def _unsupported_problems(body: Mapping[str, object]) -> Problems:
    return {
        f"/{name}": [f"cannot be honoured by this server: {UNSUPPORTED[name]}"]
        for name, value in body.items()
        if name in UNSUPPORTED and value and not _IS_DEFAULT.get(name, _is_empty)(value)
    }


def _is_empty(value: object) -> bool:
    return not value


def _convert(fields: Mapping[str, object], problems: Problems) -> dict[str, object]:
    """The values in the types of `App`, by JSON name; null means that a field is absent."""
    values: dict[str, object] = {}
    for name, value in fields.items():
        if value is None:
            continue
        try:
            values[name] = msgspec.convert(value, _FIELDS[name])
        except msgspec.ValidationError as error:
            what, path = _located(str(error))
            problems.setdefault(f"/{name}{path}", []).append(what)
    return values


def _located(message: str) -> tuple[str, str]:
    """Text and JSON path of a msgspec message such as `Expected `int` - at `$.port``."""
    what, _, where = message.partition(" - at `$")
    path = where.rstrip("`").replace("[...]", "")
    path = path.replace("[", "(").replace("]", ")").replace(".", "/")
    return what[:1].lower() + what[1:], path


def _exclusive(values: Mapping[str, object]) -> dict[str, object]:
    """The values by attribute name; a new `cmd` removes `args` and the other way round."""
    changes = {_attribute(name): value for name, value in values.items()}
    if "cmd" in changes:
        changes.setdefault("args", None)
    if "args" in changes and changes["args"] is not None:
        changes.setdefault("cmd", None)
    return changes


def _attribute(name: str) -> str:
    """The attribute of a JSON name: `portDefinitions` is `port_definitions`."""
    return re.sub(r"[A-Z]", lambda match: "_" + match[0].lower(), name)


def _resolve_id(body_id: object, path_id: str | None, problems: Problems) -> str:
    """The app's canonical id; problems are added where the ids differ or are not valid."""
    given = body_id if isinstance(body_id, str) else None
    chosen = given if path_id is None else path_id
    if chosen is None:
        problems.setdefault("/id", ["is missing"])
        return ""
    app_id = canonical_id(chosen)
    if given is not None and canonical_id(given) != app_id:
        problems["/id"] = [f"{given!r} is not the app of this address, {app_id!r}"]
        return app_id
    for segment in app_id[1:].split("/"):
        if not SEGMENT.fullmatch(segment):
            problems["/id"] = [_NAME_PROBLEM.format(segment=segment)]
    return app_id


def _check(app: App, problems: Problems) -> None:
    """Add what is wrong with the values of an app."""
    for check in _CHECKS:
        for path, problem in check(app):
            problems.setdefault(path, []).append(problem)


def _check_command(app: App) -> Iterable[Problem]:
    if (app.cmd is None) == (app.args is None):
        yield "/", "give either cmd or args, and not both"
    if app.cmd == "":
        yield "/cmd", "must not be empty"
    elif app.args in ([], [""]):
        yield "/args", "must not be empty"


def _check_environment(app: App) -> Iterable[Problem]:
    for name in app.env:
        if not name or "=" in name or "\0" in name:
            yield f"/env/{name}", "is not a name of an environment variable"


_MINIMUM: dict[str, float] = {
    "instances": 0,
    "cpus": 0,
    "mem": 0,
    "disk": 0,
    "gpus": 0,
    "backoffSeconds": 0,
    "backoffFactor": 1,
    "maxLaunchDelaySeconds": 0,
    "taskKillGracePeriodSeconds": 0,
}

LEAST_AMOUNT = 0.001
"""Mesos counts resources in thousandths: less is nothing, and an instance of nothing is invalid."""

PROTOCOLS = ("tcp", "udp", "udp,tcp")
"""The protocols of a port in Marathon's RAML."""


def _check_numbers(app: App) -> Iterable[Problem]:
    for name, minimum in _MINIMUM.items():
        value = getattr(app, _attribute(name))
        if value is not None and not _is_at_least(value, minimum):
            yield f"/{name}", f"must be a number of at least {minimum:g}, not {value:g}"
    if app.instances > MAX_INSTANCES:
        yield "/instances", f"more than {MAX_INSTANCES} instances"
    if max(app.cpus, app.mem) < LEAST_AMOUNT:
        yield "/", f"an instance needs at least {LEAST_AMOUNT:g} cpus or MiB of mem"


def _is_at_least(value: float, minimum: float) -> bool:
    return math.isfinite(value) and value >= minimum


def _check_ports(app: App) -> Iterable[Problem]:
    for index, definition in enumerate(app.port_definitions):
        if definition.protocol not in PROTOCOLS:
            yield f"/portDefinitions({index})/protocol", f"must be one of {', '.join(PROTOCOLS)}"
    ports = [definition.port for definition in app.port_definitions]
    for index, port in enumerate(ports):
        if not 0 <= port <= MAX_PORT:
            yield f"/portDefinitions({index})/port", f"{port} is not between 0 and {MAX_PORT}"
        elif port and ports.count(port) > 1:
            yield f"/portDefinitions({index})/port", f"{port} is used more than once"


def _check_port_names(app: App) -> Iterable[Problem]:
    names = [definition.name for definition in app.port_definitions if definition.name]
    if len(set(names)) < len(names):
        yield "/portDefinitions", "names of ports must differ"


def _check_strategies(app: App) -> Iterable[Problem]:
    for name in ("minimumHealthCapacity", "maximumOverCapacity"):
        if not 0 <= getattr(app.upgrade_strategy, _attribute(name)) <= 1:
            yield f"/upgradeStrategy/{name}", "must be between 0 and 1"
    strategy = app.unreachable_strategy
    if not isinstance(strategy, UnreachableStrategy):
        return
    if not 0 <= strategy.inactive_after_seconds <= strategy.expunge_after_seconds:
        yield "/unreachableStrategy", "needs 0 <= inactiveAfterSeconds <= expungeAfterSeconds"


def _check_health_checks(app: App) -> Iterable[Problem]:
    if len(app.health_checks) > 1:
        yield "/healthChecks", "one health check an app: the agent runs it, whatever its protocol"
    for index, check in enumerate(app.health_checks):
        for path, problem in _check_health_check(check, len(app.port_definitions)):
            yield f"/healthChecks({index}){path}", problem


_HEALTH_CHECK_NUMBERS = (
    "gracePeriodSeconds",
    "intervalSeconds",
    "timeoutSeconds",
    "delaySeconds",
    "maxConsecutiveFailures",
)


def _check_health_check(check: HealthCheck, port_count: int) -> Iterable[Problem]:
    if check.kind == "COMMAND":
        yield from _check_command_check(check.command)
    elif check.port is None and not 0 <= (check.port_index or 0) < port_count:
        yield "/portIndex", "names no port of this app"
    for name in _HEALTH_CHECK_NUMBERS:
        value = getattr(check, _attribute(name))
        if not _is_at_least(value, 0):
            yield f"/{name}", f"must be a number of at least 0, not {value:g}"


def _check_command_check(command: CommandCheck | None) -> Iterable[Problem]:
    if command is None or not command.value:
        yield "/command", "is missing"


def _check_labels(app: App) -> Iterable[Problem]:
    for label, problem in read_labels(app.labels).problems:
        yield f"/labels/{label}", problem


def _check_constraints(app: App) -> Iterable[Problem]:
    for index, constraint in enumerate(app.constraints):
        if (problem := problem_with(constraint)) is not None:
            yield f"/constraints({index})", problem


def _check_role(app: App) -> Iterable[Problem]:
    if app.role != ROLE:
        yield "/role", f"this server runs apps in the role {ROLE!r} only"


_CHECKS: Sequence[Callable[[App], Iterable[Problem]]] = (
    _check_command,
    _check_environment,
    _check_numbers,
    _check_ports,
    _check_port_names,
    _check_strategies,
    _check_health_checks,
    _check_constraints,
    _check_labels,
    _check_role,
    definition_limits.check_id,
    definition_limits.check_texts,
    definition_limits.check_user,
    definition_limits.check_sizes,
)


def _with_service_ports(app: App, taken: frozenset[int]) -> App:
    """The app with a free service port for each definition that asks for one."""
    if app.require_ports:
        return app
    used = taken | {definition.port for definition in app.port_definitions}
    free = (port for port in range(FIRST_SERVICE_PORT, LAST_SERVICE_PORT + 1) if port not in used)
    definitions = [
        replace(definition, port=definition.port or next(free, 0))
        for definition in app.port_definitions
    ]
    return replace(app, port_definitions=definitions)
