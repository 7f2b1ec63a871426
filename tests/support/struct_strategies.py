"""Hypothesis strategies derived from typed structures, and documents with mistakes in them.

`documents(type)` gives plain values (dict, list, str, numbers, None) in the shape of a type: a
msgspec struct, a dataclass, a pydantic model, or any annotation of these. `mistaken(strategy)`
changes parts of such documents: other types, numbers out of range, deep nesting, control
characters, huge lists.
`as_json` and `as_msgpack` encode them, also where no well-behaved encoder would.
Depends on hypothesis, msgspec and pydantic only.
"""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import msgspec
from hypothesis import strategies as st
from pydantic import BaseModel

Document: TypeAlias = Any
"""A decoded document: dict, list, str, bytes, bool, int, float or None."""
Overrides: TypeAlias = Mapping[str, st.SearchStrategy[Document]]
"""Strategies of fields by the field's name on the wire; they win over the derived ones."""


Fields: TypeAlias = (
    msgspec.inspect.StructType | msgspec.inspect.DataclassType | msgspec.inspect.TypedDictType
)
"""Types with named fields."""


@dataclass(frozen=True)
class Raw:
    """JSON text that stands for itself, such as a number that Python cannot hold."""

    text: str


@dataclass(frozen=True)
class Pairs:
    """A JSON object whose keys may repeat."""

    items: tuple[tuple[str, Document], ...]


HUGE = 10**400
NAMES = ("a", "web", "default", "task-1", "*", "root", "cpus", "mem", "ports")
NUMBERS: tuple[Document, ...] = (
    0, -1, 1, 0.5, 0.0001, -0.0, 2**31, 2**53 + 1, 2**63 - 1, 2**63, 2**64, -(2**63) - 1, HUGE,
    1e-320, 1e15, 1e300, 1e308, math.nan, math.inf, -math.inf, Raw("1e999"), Raw("-1E+400"),
)  # fmt: skip
TEXTS: tuple[str, ...] = (
    "", " ", ".", "..", "/", "a/b", "a//b", "../../etc/passwd", "/tmp/absolute", "a\x00b", "a\nb",
    "\x1b[31m", "\u202e", "\ufeff", "\ud800", "é", "😀", "NaN", "Infinity", "-1", "1e308", "true",
    "%s%n", "{{7*7}}", "<script>", "' OR 1=1", "x" * 300, "x" * 5000, "x" * 70_000,
)  # fmt: skip
SHAPES: tuple[Document, ...] = (
    None, True, False, [], {}, [None], [[]], {"value": None}, {"value": 1}, {"": ""}, [1, "a"],
    Raw("[" * 600 + "]" * 600), Raw('{"a":' * 600 + "1" + "}" * 600),
    Raw("[" + "0," * 20_000 + "0]"),
    Raw("{" + ",".join(f'"k{n}":{n}' for n in range(3000)) + "}"),
    Pairs((("value", "a"), ("value", "b"))),
)  # fmt: skip


def one_of_values(values: Sequence[Document]) -> st.SearchStrategy[Document]:
    """One of these values. Unlike `sampled_from`, its representation does not contain them."""
    return st.integers(0, len(values) - 1).map(values.__getitem__)


wild_values: st.SearchStrategy[Document] = st.one_of(
    one_of_values(NUMBERS),
    one_of_values(TEXTS),
    one_of_values(SHAPES),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
)
"""Values that a careless reader takes for something else."""

json_values: st.SearchStrategy[Document] = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats(-2, 2) | st.sampled_from(NAMES),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=3)
    ),
    max_leaves=6,
)
"""Small documents of any shape, for fields without a type."""


def documents(
    annotation: object, overrides: Overrides | None = None
) -> st.SearchStrategy[Document]:
    """Documents in the shape of a type, as its decoder accepts them.

    Args:
        annotation: a msgspec struct, a pydantic model, or an annotation.
        overrides: strategies of fields by name.

    """
    return _Derivation(overrides or {}).of_annotation(annotation)


class _Derivation:
    """The strategies of one call; a recursive type refers to its own strategy."""

    def __init__(self, overrides: Overrides) -> None:
        self._overrides = overrides
        self._of_struct: dict[type, st.SearchStrategy[Document]] = {}
        self._of: dict[type, Callable[[Any], st.SearchStrategy[Document]]] = {
            msgspec.inspect.StructType: self._struct,
            msgspec.inspect.DataclassType: self._struct,
            msgspec.inspect.TypedDictType: self._struct,
            msgspec.inspect.UnionType: lambda info: st.one_of(
                [self.of_info(item) for item in info.types]
            ),
            msgspec.inspect.ListType: self._list,
            msgspec.inspect.SetType: self._list,
            msgspec.inspect.FrozenSetType: self._list,
            msgspec.inspect.VarTupleType: self._list,
            msgspec.inspect.TupleType: self._tuple,
            msgspec.inspect.DictType: self._dict,
            msgspec.inspect.LiteralType: lambda info: st.sampled_from(list(info.values)),
            msgspec.inspect.EnumType: lambda info: st.sampled_from([e.value for e in info.cls]),
            msgspec.inspect.IntType: _integers,
            msgspec.inspect.FloatType: _floats,
            msgspec.inspect.StrType: _texts,
            msgspec.inspect.BytesType: lambda _info: st.binary(max_size=20),
            msgspec.inspect.BoolType: lambda _info: st.booleans(),
            msgspec.inspect.NoneType: lambda _info: st.none(),
            msgspec.inspect.CustomType: self._custom,
        }

    def of_annotation(self, annotation: object) -> st.SearchStrategy[Document]:
        return self.of_info(msgspec.inspect.type_info(annotation))

    def of_info(self, info: msgspec.inspect.Type) -> st.SearchStrategy[Document]:
        if isinstance(info, msgspec.inspect.Metadata):
            return self.of_info(info.type)
        derive = self._of.get(type(info))
        return json_values if derive is None else derive(info)

    def _struct(self, info: Fields) -> st.SearchStrategy[Document]:
        if info.cls not in self._of_struct:
            # Set before the fields are derived, so that a recursive type ends.
            self._of_struct[info.cls] = st.deferred(lambda: strategy)
            strategy = self._struct_fields(info)
            self._of_struct[info.cls] = strategy
        return self._of_struct[info.cls]

    def _struct_fields(self, info: Fields) -> st.SearchStrategy[Document]:
        required: dict[str, st.SearchStrategy[Document]] = {}
        optional: dict[str, st.SearchStrategy[Document]] = {}
        is_struct = isinstance(info, msgspec.inspect.StructType)
        if is_struct and info.tag_field is not None:
            required[info.tag_field] = st.just(info.tag)
        for field in info.fields:
            into = required if field.required else optional
            into[field.encode_name] = self._field(field.encode_name, field.type)
        if is_struct and info.array_like:
            return st.tuples(*required.values(), *optional.values()).map(list)
        return st.fixed_dictionaries(required, optional=optional)

    def _field(self, name: str, info: msgspec.inspect.Type) -> st.SearchStrategy[Document]:
        chosen = self._overrides.get(name)
        return self.of_info(info) if chosen is None else chosen

    def _list(self, info: Any) -> st.SearchStrategy[Document]:
        low = info.min_length or 0
        return st.lists(self.of_info(info.item_type), min_size=low, max_size=max(low, 3))

    def _tuple(self, info: msgspec.inspect.TupleType) -> st.SearchStrategy[Document]:
        return st.tuples(*map(self.of_info, info.item_types)).map(list)

    def _dict(self, info: msgspec.inspect.DictType) -> st.SearchStrategy[Document]:
        return st.dictionaries(
            self.of_info(info.key_type), self.of_info(info.value_type), max_size=3
        )

    def _custom(self, info: msgspec.inspect.CustomType) -> st.SearchStrategy[Document]:
        if isinstance(info.cls, type) and issubclass(info.cls, BaseModel):
            return self._model(info.cls)
        return json_values

    def _model(self, model: type[BaseModel]) -> st.SearchStrategy[Document]:
        required: dict[str, st.SearchStrategy[Document]] = {}
        optional: dict[str, st.SearchStrategy[Document]] = {}
        for name, field in model.model_fields.items():
            into = required if field.is_required() else optional
            chosen = self._overrides.get(name)
            into[name] = self.of_annotation(field.annotation) if chosen is None else chosen
        return st.fixed_dictionaries(required, optional=optional)


def _integers(info: msgspec.inspect.IntType) -> st.SearchStrategy[int]:
    low = info.ge if info.ge is not None else -(2**63) if info.gt is None else info.gt + 1
    high = info.le if info.le is not None else 2**63 - 1 if info.lt is None else info.lt - 1
    likely = st.integers(max(low, -2), min(high, max(low, 40)))
    return st.one_of(likely, st.sampled_from([low, high]), st.integers(low, high))


def _floats(info: msgspec.inspect.FloatType) -> st.SearchStrategy[float]:
    low = info.ge if info.ge is not None else info.gt
    high = info.le if info.le is not None else info.lt
    likely = st.sampled_from([0.1, 0.5, 1.0, 2.0, 32.0]).filter(
        lambda value: (low is None or value > low) and (high is None or value < high)
    )
    every = st.floats(
        low,
        high,
        exclude_min=info.gt is not None,
        exclude_max=info.lt is not None,
        allow_nan=False,
        allow_infinity=False,
    )
    return likely | every


def _texts(info: msgspec.inspect.StrType) -> st.SearchStrategy[str]:
    if info.pattern is not None:
        return st.from_regex(info.pattern, fullmatch=True)
    low, high = info.min_length or 0, info.max_length or 20
    names = [name for name in NAMES if low <= len(name) <= high]
    every = st.text(min_size=low, max_size=min(high, max(low, 20)))
    return st.sampled_from(names) | every if names else every


# --- mistakes


@st.composite
def mistaken(draw: st.DrawFn, strategy: st.SearchStrategy[Document], most: int = 2) -> Document:
    """Documents of `strategy`, each with up to `most` changes; about one in five has none."""
    document = draw(strategy)
    for _ in range(draw(st.sampled_from([0, 1, 1, 1, most]))):
        document = draw(_changed(document))
    return document


@st.composite
def _changed(draw: st.DrawFn, document: Document) -> Document:
    places = list(_places(document))
    numbers = [path for path in places if _is_number(_at(document, path))]
    prefers_numbers: bool = draw(st.booleans())
    if numbers and prefers_numbers:
        return _apply(
            document, draw(st.sampled_from(numbers)), "replace", draw(one_of_values(NUMBERS))
        )
    path = draw(st.sampled_from(places))
    change = draw(st.sampled_from(("replace", "replace", "replace", "remove", "repeat", "add")))
    return _apply(document, path, change, draw(wild_values))


def _at(document: Document, path: tuple[Any, ...]) -> Document:
    for key in path:
        document = document[key]
    return document


def _is_number(value: Document) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _places(document: Document, path: tuple[Any, ...] = ()) -> Iterable[tuple[Any, ...]]:
    yield path
    if isinstance(document, dict):
        for key, value in document.items():
            yield from _places(value, (*path, key))
    elif isinstance(document, list):
        for index, value in enumerate(document[:20]):
            yield from _places(value, (*path, index))


def _apply(document: Document, path: tuple[Any, ...], change: str, value: Document) -> Document:
    if not path:
        return _apply_here(document, change, value)
    key, *rest = path
    if isinstance(document, list):
        if change == "remove" and not rest:
            return [*document[:key], *document[key + 1 :]]
        inner = _apply(document[key], tuple(rest), change, value)
        return [*document[:key], inner, *document[key + 1 :]]
    if change == "remove" and not rest:
        return {name: item for name, item in document.items() if name != key}
    return {**document, key: _apply(document[key], tuple(rest), change, value)}


def _apply_here(document: Document, change: str, value: Document) -> Document:
    if change == "repeat" and isinstance(document, dict) and document:
        name, first = next(iter(document.items()))
        return Pairs((*document.items(), (str(name), first), (str(name), value)))
    if change == "repeat" and isinstance(document, list):
        return document * 50
    if change == "add" and isinstance(document, dict):
        return {**document, "unknown": value}
    if change == "add" and isinstance(document, list):
        return [*document, value]
    return value


# --- encodings


def as_json(document: Document) -> bytes:
    """The JSON text of a document; with NaN, repeated keys and unpaired surrogates as they are."""
    return _json(document).encode("utf-8", "surrogatepass")


def _json(document: Document) -> str:
    if isinstance(document, Raw):
        return document.text
    if isinstance(document, Pairs):
        return "{" + ",".join(f"{json.dumps(k)}:{_json(v)}" for k, v in document.items) + "}"
    if isinstance(document, dict):
        members = (f"{json.dumps(str(name))}:{_json(value)}" for name, value in document.items())
        return "{" + ",".join(members) + "}"
    if isinstance(document, list | tuple):
        return "[" + ",".join(map(_json, document)) + "]"
    if isinstance(document, bytes):
        return json.dumps(msgspec.to_builtins(document))
    return json.dumps(document, ensure_ascii=isinstance(document, str) and _has_surrogate(document))


def _has_surrogate(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)


def as_msgpack(document: Document) -> bytes:
    """The msgpack of a document, as far as msgpack can express it."""
    return msgspec.msgpack.encode(_expressible(document))


def _expressible(document: Document) -> Document:
    if isinstance(document, Raw):
        try:
            return _expressible(json.loads(document.text))
        except (ValueError, RecursionError):
            return document.text
    if isinstance(document, Pairs):
        return _expressible(dict(document.items))
    if isinstance(document, dict):
        return {_expressible(name): _expressible(value) for name, value in document.items()}
    if isinstance(document, list | tuple):
        return [_expressible(item) for item in document]
    if isinstance(document, str):
        return document.encode("utf-8", "replace").decode()
    if isinstance(document, int) and not -(2**63) <= document < 2**64:
        return float("inf")
    return document


@st.composite
def damaged(draw: st.DrawFn, strategy: st.SearchStrategy[bytes]) -> bytes:
    """Encoded messages, some of them cut, with changed bytes, or with something behind them."""
    data = draw(strategy)
    change = draw(st.sampled_from(("none", "none", "none", "cut", "flip", "append", "prepend")))
    if change == "none" or not data:
        return data
    at = draw(st.integers(0, len(data) - 1))
    noise = draw(st.binary(min_size=1, max_size=8))
    match change:
        case "cut":
            return data[:at]
        case "flip":
            return data[:at] + noise + data[at + len(noise) :]
        case "append":
            return data + noise
    return noise + data


def compressed(data: bytes) -> bytes:
    """The message in gzip, always in the same bytes."""
    return gzip.compress(data, mtime=0)
