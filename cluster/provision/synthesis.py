"""What an earlier synthesis left, used again where that is right: to destroy.

Terraform destroys what its state lists and takes from the configuration only the provider and where the state is; so the
configuration that made the things is the best one to destroy them with, whatever the cluster file says by now.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mesaform.provision.state_folders import STACKS, stack_dir, synth_dir

GO_BEFORE = {"agents": "masters"}
"""Who goes before whom, besides what the stacks' own dependencies say: no agent is ever without masters."""


def order_for_destruction(folder: Path) -> bool:
    """Make the cluster's synthesized stacks ready to be destroyed in one run of cdktf; False if they are not whole.

    cdktf destroys a stack only after all that depend on it. Agents and masters come up side by side; here the agents are made to
    depend on the masters. The next deployment synthesizes anew and knows nothing of it. Idempotent.
    """
    path = synth_dir(folder) / "manifest.json"
    manifest = _read(path)
    stacks = manifest.get("stacks", {})
    if not all(
        stack in stacks and _read(stack_dir(folder, stack) / "cdk.tf.json") for stack in STACKS
    ):
        return False
    for first, later in GO_BEFORE.items():
        needs = stacks[first]["dependencies"]
        if later not in needs:
            needs.append(later)
    path.write_text(json.dumps(manifest, indent=2), encoding="utf-8")
    return True


def _read(path: Path) -> dict[str, Any]:
    """A JSON object; empty where there is none, or where a crash cut it short."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
