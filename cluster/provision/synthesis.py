"""Reuse of an earlier synthesis to destroy stacks.

Terraform destroys what its state lists and takes only the provider and the place of the state from
the configuration. So the configuration that created the resources is the right one to destroy them,
whatever the cluster file contains now.
"""

from __future__ import annotations

import json
from pathlib import Path

from mesaform.common.json_types import JsonObject, as_list, as_object
from mesaform.provision.state_folders import STACKS, stack_dir, synth_dir

GO_BEFORE = {"agents": "masters"}
"""Order of destruction besides the stacks' own dependencies: agents go before masters."""


def order_for_destruction(folder: Path) -> bool:
    """Prepare the synthesized stacks for one `cdktf destroy`; False if they are incomplete.

    cdktf destroys a stack only after all that depend on it. Agents and masters are deployed side by
    side; here the agents are made to depend on the masters. The next synthesis overwrites this.
    Idempotent.
    """
    path = synth_dir(folder) / "manifest.json"
    manifest = _read(path)
    stacks = as_object(manifest.get("stacks"))
    if not all(
        stack in stacks and _read(stack_dir(folder, stack) / "cdk.tf.json") for stack in STACKS
    ):
        return False
    for first, later in GO_BEFORE.items():
        needs = as_list(as_object(stacks[first])["dependencies"])
        if later not in needs:
            needs.append(later)
    path.write_text(json.dumps(manifest, indent=2), encoding="utf-8")
    return True


def _read(path: Path) -> JsonObject:
    """A JSON object; empty where there is none, or where a crash cut it short."""
    try:
        return as_object(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}
