"""Limits of app definitions beside Marathon's: sizes, texts, unknown fields. No I/O.

What is accepted fits into ZooKeeper and can be executed; what is not known is refused instead of
being ignored.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TypeAlias

import msgspec

from mesaform.common.json_types import Json
from mesaform.services.model import (
    App,
    CommandCheck,
    Fetch,
    HealthCheck,
    PortDefinition,
    UnreachableStrategy,
    UpgradeStrategy,
)

MAX_ID_CHARACTERS = 200
"""The id is part of each task's id, which names folders and may have 255 characters."""

MAX_APP_BYTES = 256 * 1024
MAX_TEXT_CHARACTERS = 100_000
"""Linux passes at most 128 KiB as one argument or variable."""

MAX_PORTS = 200
MAX_CONSTRAINTS = 100
MAX_PATTERN_CHARACTERS = 1000

Problem: TypeAlias = tuple[str, str]
"""A JSON path and what is wrong there."""

_PARTS: Mapping[str, type[msgspec.Struct]] = {
    "portDefinitions": PortDefinition,
    "fetch": Fetch,
    "healthChecks": HealthCheck,
    "upgradeStrategy": UpgradeStrategy,
    "unreachableStrategy": UnreachableStrategy,
    "command": CommandCheck,
}
"""The structure of the value, or of each of its items, by the name of the field."""

_DEFAULTS: Mapping[str, Json] = {"ipProtocol": "IPv4", "ignoreHttp1xx": False}
"""Values of Marathon's fields that ask for what this server does anyway."""


def unknown_fields(body: Mapping[str, object], known: Iterable[str]) -> Iterator[Problem]:
    """The fields of a body that nothing reads and that ask for something."""
    names = set(known)
    for name, value in body.items():
        if name not in names:
            if value:
                yield f"/{name[:100]}", "is no field of an app"
        elif name in _PARTS:
            yield from _unknown_in(value, _PARTS[name], f"/{name}")


def _unknown_in(value: object, part: type[msgspec.Struct], path: str) -> Iterator[Problem]:
    if isinstance(value, list):
        for index, item in enumerate(value[: MAX_PORTS + 1]):
            yield from _unknown_in(item, part, f"{path}({index})")
    elif isinstance(value, dict):
        names = {field.encode_name for field in msgspec.structs.fields(part)}
        for name in names & value.keys() & _PARTS.keys():
            yield from _unknown_in(value[name], _PARTS[name], f"{path}/{name}")
        for name in sorted(value.keys() - names):
            yield from _unknown_field(name, value[name], path)


def _unknown_field(name: str, value: object, path: str) -> Iterator[Problem]:
    if value and _DEFAULTS.get(name) != value:
        yield f"{path}/{name[:100]}", "is no field that this server honours"


def check_id(app: App) -> Iterator[Problem]:
    if len(app.id) > MAX_ID_CHARACTERS:
        yield "/id", f"has {len(app.id)} characters; at most {MAX_ID_CHARACTERS} are possible"


def check_texts(app: App) -> Iterator[Problem]:
    """Texts that no process can be given."""
    for path, text in _texts(app):
        if "\0" in text:
            yield path, "must not contain a NUL character"
        if len(text) > MAX_TEXT_CHARACTERS:
            yield path, f"is longer than {MAX_TEXT_CHARACTERS} characters"


def _texts(app: App) -> Iterator[Problem]:
    yield "/cmd", app.cmd or ""
    yield "/user", app.user or ""
    yield from (("/args", text) for text in app.args or ())
    for name, value in (*app.env.items(), *app.labels.items()):
        yield f"/env/{name[:100]}", name
        yield f"/env/{name[:100]}", value
    for item in app.fetch:
        yield "/fetch", item.uri
        yield "/fetch", item.dest_path or ""


def check_user(app: App) -> Iterator[Problem]:
    if app.user is not None and not app.user.strip():
        yield "/user", "must not be empty"


def check_sizes(app: App) -> Iterator[Problem]:
    """Lists and definitions that are too long."""
    if len(app.port_definitions) > MAX_PORTS:
        yield "/portDefinitions", f"more than {MAX_PORTS} ports"
    if len(app.constraints) > MAX_CONSTRAINTS:
        yield "/constraints", f"more than {MAX_CONSTRAINTS} constraints"
    if any(len(part) > MAX_PATTERN_CHARACTERS for parts in app.constraints for part in parts):
        yield "/constraints", f"a part has more than {MAX_PATTERN_CHARACTERS} characters"
    size_bytes = len(msgspec.json.encode(app))
    if size_bytes > MAX_APP_BYTES:
        yield "/", f"the definition has {size_bytes} bytes; at most {MAX_APP_BYTES} are possible"
