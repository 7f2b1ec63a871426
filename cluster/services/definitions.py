"""From the JSON that a person posts to an `App`, with everything that is wrong with it said at once. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from mesaform.services.constraints import problem_with
from mesaform.services.model import ROLE, App, PortDefinition, UnreachableStrategy

FIRST_SERVICE_PORT, LAST_SERVICE_PORT = 10000, 20000
SEGMENT = re.compile(
    r"(([a-z0-9]|[a-z0-9][a-z0-9-]*[a-z0-9])\.)*([a-z0-9]|[a-z0-9][a-z0-9-]*[a-z0-9])"
)

# What Marathon's answers carry and its clients send back: read, never written.
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
    }
    | {"lastTaskFailure", "taskStats", "readinessCheckResults"}
)
# Marathon's fields that change what an app does and that this server cannot honour: refused when they say something.
UNSUPPORTED = {
    "container": "apps run as plain processes here; give cmd or args",
    "dependencies": "apps are started without an order",
    "executor": "only the command executor is there",
    "ipAddress": "apps use their host's network",
    "networks": "apps use their host's network",
    "readinessChecks": "give a health check instead",
    "residency": "there are no persistent volumes",
    "secrets": "there is no store of secrets",
    "taskKillOrder": "use killSelection",
    "tty": "there is no terminal",
    "volumes": "there are no volumes",
}
_SAYS_NOTHING: dict[str, Callable[[Any], bool]] = {
    "networks": lambda value: value == [{"mode": "host"}],
    "container": lambda value: (
        isinstance(value, dict)
        and not any(part for name, part in value.items() if (name, part) != ("type", "MESOS"))
    ),
    "executor": lambda value: value == "//cmd",
}
_OLD_NAMES = ("ports", "uris")
_FIELDS = {
    field.encode_name: field.type
    for field in msgspec.structs.fields(App)
    if field.name not in ("version", "config_version")
}

Problems = dict[str, list[str]]


class InvalidApp(Exception):
    """The posted definition cannot be used. `problems` maps JSON paths such as `/cpus` to what is wrong there."""

    def __init__(self, problems: Problems) -> None:
        super().__init__("the app definition is not valid")
        self.problems = problems


def canonical_id(app_id: str) -> str:
    """An app's id as an absolute path: `web/api` is `/web/api`."""
    return "/" + app_id.strip("/")


def parse(
    body: Any,
    *,
    base: App | None = None,
    app_id: str | None = None,
    taken_ports: Iterable[int] = (),
) -> App:
    """An app from decoded JSON.

    Args:
        body: what was posted.
        base: the app being changed; fields that are not in `body` stay as they are.
        app_id: the id in the request's path; `body` may repeat it and may not contradict it.
        taken_ports: service ports of other apps, which are not assigned again.

    Raises:
        InvalidApp: with every problem found.

    """
    if not isinstance(body, dict):
        raise InvalidApp({"/": ["an app is a JSON object"]})
    fields, problems = _known_fields(body)
    values: dict[str, Any] = (
        {"portDefinitions": [PortDefinition()]} if base is None else _as_written(base, fields)
    )
    values.update(_converted(fields, problems))
    _settle_id(values, app_id, problems)
    if problems:
        raise InvalidApp(problems)
    app = App(**{_attribute(name): value for name, value in values.items()})
    _check(app, problems)
    if problems:
        raise InvalidApp(problems)
    return _with_service_ports(app, frozenset(taken_ports))


def _known_fields(body: dict[str, Any]) -> tuple[dict[str, Any], Problems]:
    """The fields to use. Names that Marathon does not know are left out, as Marathon does."""
    fields = {name: value for name, value in body.items() if name in _FIELDS or name in _OLD_NAMES}
    problems: Problems = {
        f"/{name}": [f"cannot be honoured by this server: {UNSUPPORTED[name]}"]
        for name, value in body.items()
        if name in UNSUPPORTED and value and not _SAYS_NOTHING.get(name, bool)(value)
    }
    _modernise(
        fields,
        "ports",
        "portDefinitions",
        lambda port: isinstance(port, int),
        lambda port: {"port": port},
    )
    _modernise(fields, "uris", "fetch", lambda uri: isinstance(uri, str), lambda uri: {"uri": uri})
    return fields, problems


def _modernise(
    fields: dict[str, Any],
    old: str,
    new: str,
    fits: Callable[[Any], bool],
    form: Callable[[Any], Any],
) -> None:
    """An old field says the same as its successor, which wins when both are there and it is not empty."""
    if old not in fields:
        return
    value = fields.pop(old)
    if fields.get(new) is None or (value and not fields[new]):
        whole = isinstance(value, list) and all(fits(part) for part in value)
        fields[new] = [form(part) for part in value] if whole else value


def _as_written(base: App, changes: Mapping[str, Any]) -> dict[str, Any]:
    values = {name: getattr(base, _attribute(name)) for name in _FIELDS}
    if changes.get("cmd") is not None:
        values["args"] = None
    if changes.get("args") is not None:
        values["cmd"] = None
    return values


def _converted(fields: Mapping[str, Any], problems: Problems) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in fields.items():
        if value is None:
            continue
        try:
            values[name] = msgspec.convert(value, _FIELDS[name])
        except msgspec.ValidationError as error:
            what, _, where = str(error).partition(" - at `$")
            path = (
                where.rstrip("`")
                .replace("[...]", "")
                .replace("[", "(")
                .replace("]", ")")
                .replace(".", "/")
            )
            problems.setdefault(f"/{name}{path}", []).append(what[:1].lower() + what[1:])
    return values


def _attribute(name: str) -> str:
    return re.sub(r"[A-Z]", lambda match: "_" + match[0].lower(), name)


def _settle_id(values: dict[str, Any], app_id: str | None, problems: Problems) -> None:
    given = values.get("id")
    if app_id is not None and given is not None and canonical_id(given) != canonical_id(app_id):
        problems["/id"] = [f"{given!r} is not the app of this address, {canonical_id(app_id)!r}"]
        return
    chosen = app_id if given is None else given
    if chosen is None:
        problems.setdefault("/id", ["is missing"])
        return
    values["id"] = canonical_id(chosen)
    for segment in values["id"][1:].split("/"):
        if not SEGMENT.fullmatch(segment):
            problems["/id"] = [
                f"{segment!r} is not a name: use lower-case letters, digits, and hyphens or dots between them"
            ]


def _check(app: App, problems: Problems) -> None:
    parts = (
        _command_problems,
        _number_problems,
        _port_problems,
        _strategy_problems,
        _health_problems,
    )
    for path, problem in (found for part in parts for found in part(app)):
        problems.setdefault(path, []).append(problem)
    for index, constraint in enumerate(app.constraints):
        if (wrong := problem_with(constraint)) is not None:
            problems.setdefault(f"/constraints({index})", []).append(wrong)
    if app.role != ROLE:
        problems["/role"] = [f"this server runs apps in the role {ROLE!r} only"]


def _command_problems(app: App) -> Iterable[tuple[str, str]]:
    if (app.cmd is None) == (app.args is None):
        yield "/", "give either cmd or args, and not both"
    if app.cmd == "" or app.args in ([], [""]):
        yield "/cmd" if app.cmd == "" else "/args", "must not be empty"
    for name in app.env:
        if not name or "=" in name or "\0" in name:
            yield f"/env/{name}", "is not a name of an environment variable"


_LEAST: dict[str, float] = {
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


def _number_problems(app: App) -> Iterable[tuple[str, str]]:
    for name, least in _LEAST.items():
        value = getattr(app, _attribute(name))
        if value is not None and not (math.isfinite(value) and value >= least):
            yield f"/{name}", f"must be a number of at least {least:g}, not {value:g}"
    if app.instances > 100_000:
        yield "/instances", "more than 100000 instances"
    if not (app.cpus or app.mem):
        yield "/", "an instance needs some cpus or mem"


def _port_problems(app: App) -> Iterable[tuple[str, str]]:
    ports = [definition.port for definition in app.port_definitions]
    for index, port in enumerate(ports):
        if not 0 <= port <= 65535:
            yield f"/portDefinitions({index})/port", f"{port} is not between 0 and 65535"
        elif port and ports.count(port) > 1:
            yield f"/portDefinitions({index})/port", f"{port} is used more than once"
    names = [definition.name for definition in app.port_definitions if definition.name]
    if len(set(names)) < len(names):
        yield "/portDefinitions", "names of ports must differ"


def _strategy_problems(app: App) -> Iterable[tuple[str, str]]:
    for name in ("minimumHealthCapacity", "maximumOverCapacity"):
        if not 0 <= getattr(app.upgrade_strategy, _attribute(name)) <= 1:
            yield f"/upgradeStrategy/{name}", "must be between 0 and 1"
    strategy = app.unreachable_strategy
    if (
        isinstance(strategy, UnreachableStrategy)
        and not 0 <= strategy.inactive_after_seconds <= strategy.expunge_after_seconds
    ):
        yield "/unreachableStrategy", "needs 0 <= inactiveAfterSeconds <= expungeAfterSeconds"


def _health_problems(app: App) -> Iterable[tuple[str, str]]:
    if len(app.health_checks) > 1:
        yield "/healthChecks", "one health check an app: the agent runs it, whatever its protocol"
    for index, check in enumerate(app.health_checks):
        path = f"/healthChecks({index})"
        if check.kind == "COMMAND" and (check.command is None or not check.command.value):
            yield f"{path}/command", "is missing"
        if (
            check.kind != "COMMAND"
            and check.port is None
            and not 0 <= (check.port_index or 0) < len(app.port_definitions)
        ):
            yield f"{path}/portIndex", "names no port of this app"
        for name in (
            "gracePeriodSeconds",
            "intervalSeconds",
            "timeoutSeconds",
            "delaySeconds",
            "maxConsecutiveFailures",
        ):
            value = getattr(check, _attribute(name))
            if not (math.isfinite(value) and value >= 0):
                yield f"{path}/{name}", f"must be a number of at least 0, not {value:g}"


def _with_service_ports(app: App, taken: frozenset[int]) -> App:
    used = set(taken) | {definition.port for definition in app.port_definitions}
    free = (port for port in range(FIRST_SERVICE_PORT, LAST_SERVICE_PORT + 1) if port not in used)
    assign: Callable[[int], int] = lambda port: port if port or app.require_ports else next(free, 0)  # noqa: E731
    definitions = [
        msgspec.structs.replace(definition, port=assign(definition.port))
        for definition in app.port_definitions
    ]
    return msgspec.structs.replace(app, port_definitions=definitions)
