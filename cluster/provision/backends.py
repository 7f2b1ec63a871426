"""Backends of Terraform: where a synthesized stack declares its state, and what `init` settled."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from mesaform.common.json_types import JsonObject, as_object
from mesaform.provision.state_folders import CONFIGURATION_FILE


@dataclass(frozen=True, slots=True)
class Backend:
    """The place of a state: an object in S3, or a local file."""

    bucket: str = ""
    key: str = ""
    path: str = ""


def declared_backend(folder: Path) -> Backend:
    """The backend that the stack in a folder declares."""
    declared = as_object(_read_json(folder / CONFIGURATION_FILE).get("terraform"))
    backend = as_object(declared.get("backend"))
    return _place(backend.get("s3") or backend.get("local"))


def initialized_backend(folder: Path) -> Backend:
    """The backend for which Terraform last ran `init` in a folder."""
    backend = as_object(_read_json(folder / ".terraform" / "terraform.tfstate").get("backend"))
    return _place(backend.get("config") if backend.get("type") in {"s3", "local"} else None)


def _place(config: object) -> Backend:
    values = as_object(config)
    return Backend(*(str(values.get(name) or "") for name in ("bucket", "key", "path")))


def _read_json(path: Path) -> JsonObject:
    try:
        return as_object(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}
