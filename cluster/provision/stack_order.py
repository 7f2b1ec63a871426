"""Order of the stacks, from what the synthesis wrote. Pure but for reading the synthesized files.

Terraform destroys what its state lists and takes only the provider and the place of the state from
the configuration. So the configuration that created the resources is the right one to destroy them,
whatever the cluster file contains now.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path

from mesaform.common.json_types import JsonObject, as_list, as_object
from mesaform.provision.backends import declared_backend
from mesaform.provision.state_folders import CONFIGURATION_FILE, STACKS, stack_dir, synth_dir

Order = Mapping[str, frozenset[str]]
"""For each stack the stacks that must be done before it."""


def is_synthesized(folder: Path, bucket: str = "") -> bool:
    """Whether the last synthesis left every stack, complete, with its state in the bucket.

    Without a bucket the states are in the folder.
    """
    return all(
        stack in _manifest(folder)
        and _read(stack_dir(folder, stack) / CONFIGURATION_FILE)
        and declared_backend(stack_dir(folder, stack)).bucket == bucket
        for stack in STACKS
    )


def creation_order(folder: Path, stacks: Collection[str]) -> Order:
    """Each stack after those that it depends on, among `stacks`."""
    needs = {stack: _dependencies(folder, stack) for stack in stacks}
    return {stack: frozenset(needs[stack] & set(stacks)) for stack in stacks}


def destruction_order(folder: Path, stacks: Collection[str]) -> Order:
    """Each stack after those that depend on it, among `stacks`.

    Agents and masters go side by side: each waits at least 10 s for its last machine.
    """
    needs = {stack: _dependencies(folder, stack) for stack in stacks}
    return {
        stack: frozenset(other for other in stacks if stack in needs[other]) for stack in stacks
    }


def _dependencies(folder: Path, stack: str) -> set[str]:
    return set(map(str, as_list(as_object(_manifest(folder).get(stack)).get("dependencies"))))


def _manifest(folder: Path) -> JsonObject:
    return as_object(_read(synth_dir(folder) / "manifest.json").get("stacks"))


def _read(path: Path) -> JsonObject:
    """A JSON object; empty where there is none, or where a crash cut it short."""
    try:
        return as_object(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}
