"""A stack as data: its resources with their arguments, references between them, and its outputs.

Pure. Resources and arguments have the names of Terraform's AWS provider. `mesaform_stacks.app`
renders descriptions with CDKTF, `mesaform_stacks.pulumi` with Pulumi (docs/adr/0012).
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

REFERENCE = re.compile(r"\$\{mesaform:(?P<stack>[^/}]+)/(?P<name>[^}]+)\.(?P<attribute>\w+)\}")
"""An attribute of a described resource, alone or within a text such as a policy."""


@dataclass(frozen=True, slots=True)
class Call:
    """A function of Terraform over values that are known when resources exist."""

    function: Literal["base64encode", "cidrsubnet"]
    arguments: tuple[object, ...]


def encode_base64(text: str) -> str | Call:
    """A text in base64; encoded by the tool if there are references in it."""
    if REFERENCE.search(text):
        return Call("base64encode", (text,))
    return base64.b64encode(text.encode()).decode()


def divide_cidr(cidr: str, bits: int, number: int) -> Call:
    """The network with a number among those whose prefix is `bits` longer than that of `cidr`."""
    return Call("cidrsubnet", (cidr, bits, number))


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of resource: its Terraform type, and the name of its class in generated packages."""

    terraform_type: str
    class_name: str
    is_data: bool = False


@dataclass(frozen=True, slots=True)
class ResourceDescription:
    """One resource. `name` is unique in its stack; arguments that are None are absent.

    `after` are places, `<stack>/<name>`, of resources that must exist before it and that its
    arguments do not refer to. `ignored_changes` are arguments that a
    running resource keeps as they were at its creation.
    """

    stack: str
    name: str
    kind: Kind
    arguments: Mapping[str, object]
    after: tuple[str, ...] = ()
    ignored_changes: tuple[str, ...] = ()


@dataclass(slots=True)
class StackDescription:
    """One stack. Its resources are in the order in which they refer to each other."""

    name: str
    resources: list[ResourceDescription] = field(default_factory=list)
    outputs: dict[str, object] = field(default_factory=dict)

    def put(self, name: str, value: object) -> None:
        """Add an output."""
        self.outputs[name] = value


class Resource:
    """Adds a resource to a stack. Every public attribute is a reference, such as `vpc.id`.

    `depends_on` lists resources that must exist before it; all other arguments are the provider's.

    A subclass is a kind of resource. It has the name of the class in CDKTF's generated package.
    """

    # No resource of AWS has an attribute `kind` or `place`.
    kind: Kind
    place: str

    def __init_subclass__(cls, *, terraform_type: str, is_data: bool = False) -> None:
        cls.kind = Kind(terraform_type, cls.__name__, is_data)

    def __init__(
        self,
        stack: StackDescription,
        name: str,
        /,
        depends_on: Sequence[Resource | None] = (),
        ignored_changes: tuple[str, ...] = (),
        **arguments: object,
    ) -> None:
        if any(other.name == name for other in stack.resources):
            raise ValueError(f"{stack.name}: two resources are named {name}")
        self.place = f"{stack.name}/{name}"
        present = {key: value for key, value in arguments.items() if value is not None}
        after = tuple(other.place for other in depends_on if other)
        described = ResourceDescription(
            stack.name, name, self.kind, present, after, ignored_changes
        )
        stack.resources.append(described)

    def __getattr__(self, attribute: str) -> str:
        """Return a reference to an attribute that the provider computes or repeats."""
        if attribute.startswith("_"):
            raise AttributeError(attribute)
        return f"${{mesaform:{self.place}.{attribute}}}"


class Block:
    """A nested block of arguments. A subclass has the name of CDKTF's generated class."""

    def __init__(self, /, **arguments: object) -> None:
        self.arguments = {key: value for key, value in arguments.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Renderer:
    """How a tool renders values: texts with references in them, blocks, and calls of functions.

    `block` takes a block and its rendered arguments, `call` a function and its rendered arguments.
    """

    text: Callable[[str], object]
    block: Callable[[Block, dict[str, object]], object]
    call: Callable[[str, list[object]], object]

    def render(self, value: object) -> object:
        """An argument or output as the tool takes it."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Block):
            return self.block(value, self.arguments(value.arguments))
        if isinstance(value, Call):
            return self.call(value.function, self.entries(value.arguments))
        if isinstance(value, Mapping):
            return self.arguments(value)
        if isinstance(value, (list, tuple)):
            return self.entries(value)
        return value

    def entries(self, values: Sequence[object]) -> list[object]:
        """All entries of a list."""
        return [self.render(value) for value in values]

    def arguments(self, values: Mapping[str, object]) -> dict[str, object]:
        """All arguments of a resource, block or table of tags."""
        return {key: self.render(value) for key, value in values.items()}
