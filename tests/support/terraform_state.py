"""Terraform state files for tests, written without Terraform."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path


def write_state(
    folder: Path,
    stack: str,
    resources: Iterable[tuple[str, dict[str, object]]],
    outputs: Mapping[str, object] | None = None,
) -> Path:
    """Write the state of a stack with resources given as (type, attributes)."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{stack}.tfstate"
    document = {
        "version": 4,
        "serial": 1,
        "lineage": "test",
        "outputs": {name: {"value": value} for name, value in (outputs or {}).items()},
        "resources": [
            {
                "mode": "managed",
                "type": kind,
                "name": "x",
                "instances": [{"attributes": attributes}],
            }
            for kind, attributes in resources
        ],
    }
    path.write_text(json.dumps(document))
    return path
