"""Writes object graphs as records. Shared and cyclic references are kept."""

from __future__ import annotations

import types
from collections import defaultdict, deque
from collections.abc import Callable, Collection, ItemsView, Mapping
from enum import Enum
from typing import Any, ClassVar, Protocol, cast

import msgspec

from mesaform.common.json_types import Json, JsonObject
from mesaform.localcloud.records.classes import RecordError, class_name
from mesaform.localcloud.records.leaves import (
    LEAF_BY_TYPE,
    PLAIN_TYPES,
    PRIVATE_KEYS,
    encode_float,
    encode_private_key,
)

FACTORY_NAMES: Mapping[object, str] = {
    list: "list",
    dict: "dict",
    set: "set",
    int: "int",
    str: "str",
}


class Substitution(Protocol):
    """Attributes that a class does not record, and what is recorded in their place."""

    def state_of(self, item: Any) -> dict[str, object]:
        """The attributes to record; the values are encoded like any others."""
        ...


class Encoder:
    """Encodes one graph; an instance is used once.

    Every object, and every container with more than one reference to it, is a record of the table
    `records`; `{"ref": n}` stands for record n. Other containers are nested. `classes` has the
    classes of the recorded objects and their recorded names.
    """

    def __init__(self, substitutions: Mapping[type, Substitution] | None = None) -> None:
        self.records: list[Json] = []
        self.classes: dict[type, str] = {}
        self._substitutions = substitutions or {}
        self._nodes: dict[int, JsonObject] = {}  # by id() of a container or object
        self._pending: list[tuple[object, JsonObject]] = []
        self._by_type = dict(self._METHODS)

    def encode(self, root: object) -> Json:
        """The node of a value; afterwards `records` has everything that it refers to.

        Raises:
            RecordError: a value is of a type that records do not have.

        """
        node = self._value(root)
        while self._pending:
            item, record = self._pending.pop()
            self._fill(item, record)
        return node

    def _value(self, value: object) -> Json:
        kind = type(value)
        if kind in PLAIN_TYPES:
            return value  # type: ignore[return-value]  # its type is JSON's
        if method := self._by_type.get(kind):
            return method(self, value)
        if leaf := LEAF_BY_TYPE.get(kind):
            return {leaf.tag: leaf.encode(value)}
        return self._other(value)

    def _values(self, values: Collection[object]) -> list[Json]:
        plain = PLAIN_TYPES
        return [
            value if type(value) in plain else self._value(value)  # type: ignore[misc]
            for value in values
        ]

    def _mapping(self, items: ItemsView[str, object]) -> JsonObject:
        plain = PLAIN_TYPES
        return {
            key: value if type(value) in plain else self._value(value)  # type: ignore[misc]
            for key, value in items
        }

    def _list(self, value: list[object]) -> Json:
        return self._container(value, "list")

    def _set(self, value: set[object]) -> Json:
        return self._container(value, "set")

    def _container(self, value: Collection[object], tag: str) -> Json:
        known = self._nodes.get(id(value))
        if known is not None:
            return self._reference(known)
        parts: list[Json] = []
        node: JsonObject = {tag: parts}
        self._nodes[id(value)] = node
        parts += self._values(value)
        return node

    def _dict(self, value: dict[object, object]) -> Json:
        known = self._nodes.get(id(value))
        if known is not None:
            return self._reference(known)
        node: JsonObject = {}
        self._nodes[id(value)] = node
        self._add_items(value, node)
        return node

    def _add_items(self, value: dict[object, object], node: JsonObject) -> None:
        """Add `map` with an object where all keys are strings, else `items` with pairs."""
        if set(map(type, dict.keys(value))) <= {str}:
            entries: JsonObject = {}
            node["map"] = entries
            entries.update(self._mapping(cast("ItemsView[str, object]", dict.items(value))))
        else:
            pairs: list[Json] = []
            node["items"] = pairs
            pairs += [[self._value(key), self._value(part)] for key, part in dict.items(value)]

    def _reference(self, node: JsonObject) -> Json:
        """Move a nested container that is met again to the table; its first place refers there."""
        if "ref" not in node:
            self.records.append(dict(node))
            node.clear()
            node["ref"] = len(self.records) - 1
        return {"ref": node["ref"]}

    def _tuple(self, value: tuple[object, ...]) -> Json:
        return {"tuple": self._values(value)}

    def _frozenset(self, value: frozenset[object]) -> Json:
        return {"frozenset": self._values(value)}

    def _deque(self, value: deque[object]) -> Json:
        return {"deque": [value.maxlen, self._values(value)]}

    def _method(self, value: types.MethodType) -> Json:
        return {"method": [self._value(value.__self__), value.__name__]}

    def _float(self, value: float) -> Json:
        return encode_float(value)  # type: ignore[return-value]  # dict[str, str] is JSON

    def _other(self, value: object) -> Json:
        """Values whose type is known only by its base."""
        if isinstance(value, Enum):
            return {"enum": [class_name(type(value)), value.name]}
        if isinstance(value, msgspec.Struct):
            return {"struct": [class_name(type(value)), msgspec.to_builtins(value)]}
        if isinstance(value, PRIVATE_KEYS):
            return {"private key": encode_private_key(value)}
        if isinstance(value, type):
            return {"class": class_name(value)}
        self._by_type[type(value)] = Encoder._object
        return self._object(value)

    def _object(self, value: object) -> Json:
        known = self._nodes.get(id(value))
        if known is not None:
            return {"ref": known["ref"]}
        kind: type = type(value)
        name = self.classes.get(kind)
        if name is None:
            name = self.classes[kind] = _object_class(kind)
        record: JsonObject = {"object": name}
        index = len(self.records)
        self.records.append(record)
        self._nodes[id(value)] = {"ref": index}
        self._pending.append((value, record))
        return {"ref": index}

    def _fill(self, value: object, record: JsonObject) -> None:
        substitution = self._substitutions.get(type(value))
        if substitution is not None:
            record["state"] = self._mapping(substitution.state_of(value).items())
            return
        record["state"] = self._mapping(_attributes(value).items())
        if isinstance(value, dict):
            self._add_items(value, record)
        elif isinstance(value, list):
            record["list"] = self._values(value)
        if isinstance(value, defaultdict):
            record["factory"] = encode_factory(value.default_factory)

    # Functions and not bound methods: a reference to the encoder would keep it until a collection.
    _METHODS: ClassVar[Mapping[type, Callable[..., Json]]] = {
        list: _list,
        dict: _dict,
        set: _set,
        tuple: _tuple,
        frozenset: _frozenset,
        deque: _deque,
        float: _float,
        types.MethodType: _method,
    }


def _attributes(value: object) -> dict[str, object]:
    return vars(value) if hasattr(value, "__dict__") else {}


def _object_class(kind: type) -> str:
    """The recorded name of an object's class, for objects whose parts are attributes and items."""
    has_attributes = bool(kind.__dictoffset__) or issubclass(kind, (dict, list))
    if not has_attributes or issubclass(kind, (str, bytes, int, float, tuple, set, frozenset)):
        raise RecordError(
            f"values of class {kind.__module__}:{kind.__qualname__} cannot be recorded"
        )
    return class_name(kind)


def encode_factory(factory: Callable[[], object] | None) -> Json:
    """A defaultdict's factory: a type's name, or for a function what it makes.

    Raises:
        RecordError: the function makes something else than an empty container.

    """
    if factory is None:
        return None
    if factory in FACTORY_NAMES:
        return FACTORY_NAMES[factory]
    product = factory()
    if not product and type(product) is defaultdict:
        return {"defaultdict": encode_factory(product.default_factory)}
    if not product and type(product) in FACTORY_NAMES:
        return FACTORY_NAMES[type(product)]
    raise RecordError(f"the default value {product!r} of a dictionary cannot be recorded")
