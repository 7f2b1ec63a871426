"""A commented cluster file, written from the model itself: every field with its default, its meaning and its unit."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from pydantic import BaseModel

from mesaform.config.schema import BY_TARGET, ClusterSpec

_SECTIONS = {
    "network": "Addresses, and who may come in.",
    "masters": "The machines that lead: ZooKeeper, the engine's masters, services on 8080, the autoscaler. One a zone.",
    "agents": "Pools of machines that run tasks. The autoscaler works between min (default: count) and max.",
    "autoscaler": "Buys machines for work that finds no offer, gives back what earns nothing. Durations in seconds.",
    "cost": "Money.",
}


def sample(name: str, target: Literal["local", "aws"], operator_cidrs: Sequence[str] = ()) -> str:
    """The text of a cluster file in which every default is spelled out.

    On aws without `operator_cidrs` the file cannot be used until a person names them: nothing is open to the world by default.
    """
    defaults = BY_TARGET[target]
    spec = ClusterSpec.model_construct(name=name, target=target, **defaults[""])
    lines = [
        f"# The Mesos cluster {name}. `mesaform validate` checks this file, `mesaform up` makes it true, `mesaform down` ends it.",
        "",
    ]
    for field, info in ClusterSpec.model_fields.items():
        value = getattr(spec, field)
        if field not in _SECTIONS:
            lines += _entry(field, value, info.description)
            continue
        lines += ["", f"# {_SECTIONS[field]}", f"{field}:"]
        if isinstance(value, tuple):
            for item in value:
                lines += _item(item)
            continue
        given = dict(defaults.get(field, {}))
        if field == "network" and operator_cidrs:
            given["operator_cidrs"] = tuple(operator_cidrs)
        lines += [f"  {line}" for line in _section(value, given)]
    return "\n".join(lines) + "\n"


def _section(model: BaseModel, given: dict[str, Any]) -> Iterator[str]:
    for field, info in type(model).model_fields.items():
        value = given.get(field, getattr(model, field))
        if isinstance(value, BaseModel):
            yield from (f"# {_sentence(value)}", f"{field}:")
            yield from (f"  {line}" for line in _section(value, {}))
        else:
            yield from _entry(field, value, info.description)


def _sentence(model: BaseModel) -> str:
    return (type(model).__doc__ or "").strip().splitlines()[0]


def _item(model: BaseModel) -> Iterator[str]:
    first = True
    for line in _section(model, {}):
        lead = "- " if first and not line.startswith("#") else "  "
        first = first and line.startswith("#")
        yield f"  {lead}{line}"


def _entry(field: str, value: Any, description: str | None) -> list[str]:
    """A comment and the field; a field without a value is shown as a comment too."""
    if value is None:
        return [f"# {description}", f"# {field}: (none)"]
    return [f"# {description}", f"{field}: {_yaml(value)}"]


def _yaml(value: Any) -> str:
    """Flow style, which is JSON for all that is not plain text."""
    if isinstance(value, str):
        return value
    if isinstance(value, tuple) and all(isinstance(item, str) for item in value):
        return f"[{', '.join(value)}]"
    return json.dumps(value)
