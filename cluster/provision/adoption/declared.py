"""The resources that the synthesized stacks declare, and their references to each other. Pure.

cdktf writes each stack as Terraform's JSON: `resource.<type>.<name>` has the attributes, and a
reference is text such as `${aws_vpc.vpc.id}`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from mesaform.common.json_types import Json, JsonObject, as_object
from mesaform.provision.state_folders import CONFIGURATION_FILE, STACKS, stack_dir

REFERENCE = re.compile(r"\$\{(aws_\w+\.[\w-]+)\.(?:id|name|arn|zone_id)\}")


@dataclass(frozen=True, slots=True)
class Declared:
    """A resource of a stack. `kind` is Terraform's type, such as `aws_vpc`."""

    stack: str
    kind: str
    name: str
    attributes: JsonObject

    @property
    def address(self) -> str:
        """Terraform's address within the stack, such as `aws_vpc.vpc`."""
        return f"{self.kind}.{self.name}"

    @property
    def tag_name(self) -> str:
        """The tag `Name`; empty for a kind without tags."""
        return str(as_object(self.attributes.get("tags")).get("Name") or "")

    def text(self, attribute: str) -> str:
        """An attribute as text; empty if it is not declared."""
        value = self.attributes.get(attribute)
        return "" if value is None else str(value)

    def referred(self, attribute: str, ids: Mapping[str, str]) -> str:
        """An attribute with its reference replaced by the id; empty if that id is not known."""
        return resolve(self.attributes.get(attribute), ids)


def resolve(value: Json, ids: Mapping[str, str]) -> str:
    """The text of a value; a reference to another resource becomes that resource's id.

    Args:
        value: an attribute.
        ids: ids by the addresses of the same stack.

    """
    text = "" if value is None else str(value)
    matched = REFERENCE.fullmatch(text)
    return ids.get(matched[1], "") if matched else text


def read_declared(folder: Path) -> dict[str, tuple[Declared, ...]]:
    """What each synthesized stack declares, by stack.

    Raises:
        OSError: the stacks are not synthesized.
        ValueError: a stack's JSON is damaged.

    """
    return {stack: tuple(_read_stack(folder, stack)) for stack in STACKS}


def _read_stack(folder: Path, stack: str) -> Iterator[Declared]:
    text = (stack_dir(folder, stack) / CONFIGURATION_FILE).read_text(encoding="utf-8")
    for kind, resources in as_object(as_object(json.loads(text)).get("resource")).items():
        for name, attributes in as_object(resources).items():
            yield Declared(stack, kind, name, as_object(attributes))
