"""Targets of a partial apply: machines, and the resources that may change together with them.

Terraform's `-target` takes along what a machine needs, but not what goes with it, such as the
policy of its role. Depends on the synthesized stack.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from pathlib import Path

from mesaform.common.json_types import Json, as_object
from mesaform.provision.state_folders import CONFIGURATION_FILE

_REFERENCE = re.compile(r"\b(aws_[a-z0-9_]+\.[A-Za-z0-9_-]+)\b")


def targets_of(folder: Path, addresses: Collection[str]) -> tuple[str, ...]:
    """The addresses, and those of all other resources that need no machine but these.

    Args:
        folder: the folder of the synthesized stack.
        addresses: addresses of machines, such as `aws_instance.master-1`.

    """
    references = read_references(folder)
    machines = {address for address in references if address.startswith("aws_instance.")}
    wanted = set(addresses)
    others = [
        address
        for address in references.keys() - machines
        if _needs(address, references) & machines <= wanted
    ]
    return (*addresses, *sorted(others))


def read_references(folder: Path) -> Mapping[str, frozenset[str]]:
    """For each declared resource, the resources that its attributes name."""
    document = as_object(json.loads((folder / CONFIGURATION_FILE).read_text(encoding="utf-8")))
    declared: dict[str, Json] = {
        f"{kind}.{name}": attributes
        for kind, resources in as_object(document.get("resource")).items()
        for name, attributes in as_object(resources).items()
    }
    return {
        address: frozenset(_REFERENCE.findall(json.dumps(attributes))) & declared.keys() - {address}
        for address, attributes in declared.items()
    }


def _needs(address: str, references: Mapping[str, frozenset[str]]) -> frozenset[str]:
    """Everything that a resource depends on, directly or not."""
    needs: set[str] = set()
    waiting = [address]
    while waiting:
        for needed in references.get(waiting.pop(), frozenset()) - needs:
            needs.add(needed)
            waiting.append(needed)
    return frozenset(needs)
