"""Inputs of the fuzzer as values: they can be sent, compared, stored as files and read again.

Where an input names something that exists (an offer, an agent, a task) it has a placeholder, such
as `{{offer}}`, which is replaced at the moment of sending. A stored input therefore names real
things in every cluster.
"""

from __future__ import annotations

import hashlib
import json
from base64 import b64decode, b64encode
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.fuzz.exchange import Request

PLACEHOLDERS = (
    "offer", "framework", "stream", "agent", "task", "uuid", "instance", "image", "vpc", "subnet",
    "bucket", "app", "token", "deployment",
)  # fmt: skip


def placeholder(name: str) -> str:
    """What an input has in place of the thing's id."""
    assert name in PLACEHOLDERS, name
    return "{{" + name + "}}"


@dataclass(frozen=True)
class Packets:
    """Bytes for a connection, packet by packet; `half_close` ends the sending side after them."""

    packets: tuple[bytes, ...]
    half_close: bool = False


@dataclass(frozen=True)
class Messages:
    """Encoded messages for one stream of the agents' link, in order."""

    messages: tuple[bytes, ...]


@dataclass(frozen=True)
class Stored:
    """The bytes of a stored record; `place` is which one, such as a path in ZooKeeper."""

    place: str
    data: bytes


@dataclass(frozen=True)
class Step:
    """An event for the engine's core: `call` (JSON), `message` (msgpack) or `tick`."""

    kind: str
    data: bytes


@dataclass(frozen=True)
class Script:
    """Events for the engine's core, in order."""

    steps: tuple[Step, ...]


Input = Request | Packets | Messages | Stored | Script
_KINDS: dict[str, type[Any]] = {
    kind.__name__: kind for kind in (Request, Packets, Messages, Stored, Script)
}


def to_json(target: str, value: Input, why: str) -> bytes:
    """A file's content: the target, the input, and the reason why it is kept."""
    fields = {name: _plain(getattr(value, name)) for name in value.__dataclass_fields__}
    document = {"target": target, "why": why, "kind": type(value).__name__, **fields}
    return json.dumps(document, indent=1, sort_keys=True).encode() + b"\n"


def from_json(text: bytes) -> tuple[str, Input]:
    """The target's name and the input of a stored file."""
    document = json.loads(text)
    kind = _KINDS[document["kind"]]
    fields = {name: _value(document[name]) for name in kind.__dataclass_fields__}
    return document["target"], kind(**fields)


def save(folder: Path, target: str, value: Input, why: str) -> Path:
    """Store an input below `folder`; the same input has the same name."""
    folder.mkdir(parents=True, exist_ok=True)
    text = to_json(target, value, why)
    digest = hashlib.sha256(to_json(target, value, "")).hexdigest()[:12]
    path = folder / f"{target.replace(' ', '-')}-{digest}.json"
    path.write_bytes(text)
    return path


def stored(folder: Path) -> list[Path]:
    """The stored inputs."""
    return sorted(folder.glob("*.json"))


def _plain(value: object) -> object:
    """Bytes as text where they are printable, so that a person can read the file."""
    if isinstance(value, bytes):
        if all(32 <= byte < 127 for byte in value):
            return {"text": value.decode()}
        return {"base64": b64encode(value).decode()}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if isinstance(value, Step):
        return {"step": value.kind, "data": _plain(value.data)}
    return value


def _value(plain: Any) -> Any:
    if isinstance(plain, dict) and "step" in plain:
        return Step(plain["step"], _value(plain["data"]))
    if isinstance(plain, dict):
        return plain["text"].encode() if "text" in plain else b64decode(plain["base64"])
    if isinstance(plain, list):
        return tuple(_value(item) for item in plain)
    return plain
