"""Reads records back into object graphs. No constructor runs, and no code is read from a record."""

from __future__ import annotations

import types
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Mapping
from enum import Enum
from typing import ClassVar, Protocol, TypeVar

import msgspec

from mesaform.common.json_types import Json, JsonObject
from mesaform.localcloud.records.classes import RecordError, find_class, new_instance
from mesaform.localcloud.records.leaves import LEAF_BY_TAG

FACTORIES: Mapping[str, Callable[[], object]] = {
    "list": list,
    "dict": dict,
    "set": set,
    "int": int,
    "str": str,
}


class Restoration(Protocol):
    """Gives an object the attributes that its class does not record (see `Substitution`)."""

    def set_state(self, item: object, state: dict[str, object]) -> None:
        """Set the attributes of `item` from what was recorded."""
        ...


class Decoder:
    """Decodes one table of records; an instance is used once."""

    def __init__(
        self, records: list[Json], restorations: Mapping[type, Restoration] | None = None
    ) -> None:
        self._records = [_as_node(record) for record in records]
        self._restorations = restorations or {}
        self._hashed: deque[tuple[Callable[[object, Json], None], object, Json]] = deque()
        self._values = [_shell(record) for record in self._records]

    def decode(self, root: Json) -> object:
        """The value of the node `root`, with everything that it refers to.

        Raises:
            RecordError: a record is not of this format, or names what does not exist.

        """
        try:
            for record, value in zip(self._records, self._values, strict=True):
                self._fill(record, value)
            result = self._value(root)
            while self._hashed:
                fill, target, parts = self._hashed.popleft()
                fill(target, parts)
        except (
            ValueError,
            TypeError,
            KeyError,
            IndexError,
            AttributeError,
            msgspec.MsgspecError,
        ) as error:
            raise RecordError(f"a record cannot be read: {error!r}") from error
        return result

    def _value(self, node: Json) -> object:
        """The value of a node."""
        if not isinstance(node, dict):
            if isinstance(node, list):
                raise RecordError("a bare list is not a node")
            return node
        ((tag, content),) = node.items()
        if leaf := LEAF_BY_TAG.get(tag):
            return leaf.decode(_text(content))
        method = self._METHODS.get(tag)
        if method is None:
            raise RecordError(f"unknown tag {tag!r}")
        return method(self, content)

    def _fill(self, record: JsonObject, value: object) -> None:
        if "object" not in record:
            ((tag, content),) = record.items()
            self._fill_container(tag, value, content)
            return
        state = {name: self._value(node) for name, node in _as_node(record["state"]).items()}
        restoration = self._restorations.get(type(value))
        if restoration is not None:
            restoration.set_state(value, state)
        elif state:
            vars(value).update(state)
        if isinstance(value, defaultdict):
            value.default_factory = decode_factory(record["factory"])
        for tag in ("map", "items", "list"):
            if tag in record:
                self._fill_container(tag, value, record[tag])

    def _fill_container(self, tag: str, value: object, content: Json) -> None:
        if tag == "list":
            list.extend(_as_type(value, list), map(self._value, _as_parts(content)))
        elif tag == "map":
            store = _store(value)
            for key, node in _as_node(content).items():
                store(value, key, self._value(node))
        elif tag == "set":
            self._hashed.append((self._fill_set, value, content))
        elif tag == "items":
            self._hashed.append((self._fill_items, value, content))
        else:
            raise RecordError(f"unknown container {tag!r}")

    def _fill_set(self, value: object, content: Json) -> None:
        _as_type(value, set).update(map(self._value, _as_parts(content)))

    def _fill_items(self, value: object, content: Json) -> None:
        store = _store(value)
        for pair in _as_parts(content):
            key, node = _as_parts(pair)
            store(value, self._value(key), self._value(node))

    def _reference(self, content: Json) -> object:
        if not isinstance(content, int) or content < 0:
            raise RecordError(f"{content!r} is not the number of a record")
        return self._values[content]

    def _nested(self, tag: str, value: object, content: Json) -> object:
        self._fill_container(tag, value, content)
        return value

    def _list(self, content: Json) -> object:
        return self._nested("list", [], content)

    def _set(self, content: Json) -> object:
        return self._nested("set", set(), content)

    def _map(self, content: Json) -> object:
        return self._nested("map", {}, content)

    def _items(self, content: Json) -> object:
        return self._nested("items", {}, content)

    def _tuple(self, content: Json) -> object:
        return tuple(map(self._value, _as_parts(content)))

    def _frozenset(self, content: Json) -> object:
        return frozenset(map(self._value, _as_parts(content)))

    def _deque(self, content: Json) -> object:
        longest, parts = _as_parts(content)
        return deque(
            map(self._value, _as_parts(parts)),
            _as_type(longest, int) if longest is not None else None,
        )

    def _method(self, content: Json) -> object:
        owner_node, name = _as_parts(content)
        owner = self._value(owner_node)
        for kind in type(owner).__mro__:
            function = vars(kind).get(_text(name))
            if isinstance(function, types.FunctionType):
                return types.MethodType(function, owner)
        raise RecordError(f"class {type(owner).__qualname__} has no method {name!r}")

    def _class(self, content: Json) -> object:
        return find_class(_text(content))

    def _enum(self, content: Json) -> object:
        name, member = _as_parts(content)
        kind = find_class(_text(name))
        if not issubclass(kind, Enum):
            raise RecordError(f"{name} is not an enumeration")
        return kind[_text(member)]

    def _struct(self, content: Json) -> object:
        name, fields = _as_parts(content)
        kind = find_class(_text(name))
        if not issubclass(kind, msgspec.Struct):
            raise RecordError(f"{name} is not a struct")
        return msgspec.convert(fields, kind)

    def _float(self, content: Json) -> object:
        return float(_text(content))

    _METHODS: ClassVar[Mapping[str, Callable[[Decoder, Json], object]]] = {
        "ref": _reference,
        "list": _list,
        "set": _set,
        "map": _map,
        "items": _items,
        "tuple": _tuple,
        "frozenset": _frozenset,
        "deque": _deque,
        "method": _method,
        "class": _class,
        "enum": _enum,
        "struct": _struct,
        "float": _float,
    }


def _shell(record: JsonObject) -> object:
    """The value of a record without its parts, so that references to it can be set."""
    if "object" in record:
        return new_instance(find_class(_text(record["object"])))
    if "list" in record:
        return []
    if "set" in record:
        return set()
    if "map" in record or "items" in record:
        return {}
    raise RecordError(f"unknown record {list(record)}")


def decode_factory(node: Json) -> Callable[[], object] | None:
    """A defaultdict's factory (see `encode_factory`)."""
    if node is None:
        return None
    if isinstance(node, dict):
        return lambda: defaultdict(decode_factory(node["defaultdict"]))
    return FACTORIES[_text(node)]


def _store(value: object) -> Callable[[object, object, object], None]:
    """How an item is put into a dictionary without running its class's own code."""
    kind: type[dict[object, object]] = OrderedDict if isinstance(value, OrderedDict) else dict
    return kind.__setitem__  # type: ignore[return-value] # the value is one of this kind


def _as_node(value: Json) -> JsonObject:
    return _as_type(value, dict)


def _as_parts(value: Json) -> list[Json]:
    return _as_type(value, list)


def _text(value: Json) -> str:
    return _as_type(value, str)


_T = TypeVar("_T")


def _as_type(value: object, kind: type[_T]) -> _T:
    if not isinstance(value, kind):
        raise RecordError(f"{value!r:.80} is not a {kind.__name__}")
    return value
