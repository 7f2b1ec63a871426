"""A commented cluster file: every field with its default, meaning and unit, from the model."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from pydantic import BaseModel

from mesaform.config.schema import ClusterSpec
from mesaform.config.target_defaults import BY_TARGET, TOP

_SECTIONS = {
    "network": "Addresses, and who may come in.",
    "masters": (
        "The machines that lead: ZooKeeper, the engine's masters, services on 8080, "
        "the autoscaler. They are spread over the zones."
    ),
    "agents": (
        "Pools of machines that run tasks. The autoscaler works between min (default: count) "
        "and max."
    ),
    "tasks": "As whom tasks run, and on which architecture.",
    "autoscaler": (
        "Launches machines for work that finds no offer, removes what is not needed. "
        "Durations in seconds."
    ),
    "http": "The HTTP ports of the machines.",
    "access": "Who may use the masters' ports 5050, 8080 and 9550.",
    "bake": "How images are built and kept.",
    "account": "What the AWS account demands of roles and disks.",
    "snapshots": "Snapshots of the state of services and jobs, in the account's bucket.",
    "cost": "Limits of cost.",
    "local": "What the machines of the local target are.",
}


def sample(name: str, target: Literal["local", "aws"], operator_cidrs: Sequence[str] = ()) -> str:
    """Return the text of a cluster file in which every default is written out.

    On aws without `operator_cidrs` the file is not valid until a person names the networks of the
    operators: nothing is open to the world by default.
    """
    defaults = BY_TARGET[target]
    values: dict[str, object] = {
        field: info.get_default(call_default_factory=True)
        for field, info in ClusterSpec.model_fields.items()
    }
    values.update({"name": name, "target": target, **defaults[TOP]})
    lines = [
        f"# The Mesos cluster {name}. `mesaform validate` checks this file, `mesaform up`",
        "# applies it, `mesaform down` removes the cluster.",
        "",
    ]
    for field, info in ClusterSpec.model_fields.items():
        if field not in _SECTIONS:
            lines += _entry(field, values[field], info.description)
            continue
        given = dict(defaults.get(field, {}))
        if field == "network" and operator_cidrs:
            given["operator_cidrs"] = tuple(operator_cidrs)
        lines += ["", f"# {_SECTIONS[field]}", f"{field}:", *_body(values[field], given)]
    return "\n".join(lines) + "\n"


def _body(value: object, given: Mapping[str, object]) -> Iterator[str]:
    """The lines of a section: of a model, or of a list of models."""
    if isinstance(value, BaseModel):
        yield from (f"  {line}" for line in _section(value, given))
    elif isinstance(value, tuple):
        for item in value:
            yield from _item(item)


def _section(model: BaseModel, given: Mapping[str, object]) -> Iterator[str]:
    for field, info in type(model).model_fields.items():
        value = given.get(field, getattr(model, field))
        if isinstance(value, BaseModel):
            yield from (f"# {_first_sentence(value)}", f"{field}:")
            yield from (f"  {line}" for line in _section(value, {}))
        else:
            yield from _entry(field, value, info.description)


def _first_sentence(model: BaseModel) -> str:
    return (type(model).__doc__ or "").strip().splitlines()[0]


def _item(model: BaseModel) -> Iterator[str]:
    is_first = True
    for line in _section(model, {}):
        lead = "- " if is_first and not line.startswith("#") else "  "
        is_first = is_first and line.startswith("#")
        yield f"  {lead}{line}"


def _entry(field: str, value: object, description: str | None) -> list[str]:
    """A comment and the field; a field without a value is a comment too."""
    if value is None:
        return [f"# {description}", f"# {field}: (none)"]
    return [f"# {description}", f"{field}: {_yaml(value)}"]


def _yaml(value: object) -> str:
    """Flow style, which is JSON for all that is not plain text."""
    if isinstance(value, str):
        return value
    if isinstance(value, tuple) and all(isinstance(item, str) for item in value):
        return f"[{', '.join(value)}]"
    return json.dumps(value)
