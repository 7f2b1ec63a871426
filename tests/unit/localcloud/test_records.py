"""Records keep a graph of objects as it is, and reading them runs no code."""

from __future__ import annotations

import enum
import math
import os
import threading
import uuid
from collections import OrderedDict, defaultdict, deque
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesaform.common.json_types import Json
from mesaform.localcloud.protocol import Notice
from mesaform.localcloud.records import classes
from mesaform.localcloud.records.classes import RecordError, initial_attributes
from mesaform.localcloud.records.decoder import Decoder
from mesaform.localcloud.records.encoder import Encoder


class Colour(enum.Enum):
    RED = "red"


class Node:
    """An object like moto's: attributes, a reference to itself, a bound method."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.parent: Node | None = None
        self.children: list[Node] = []
        self.show = self.describe

    def describe(self) -> str:
        return f"node {self.name}"


class Table(dict[str, object]):
    """A dictionary with an attribute and code of its own for items."""

    def __setitem__(self, key: str, value: object) -> None:
        raise AssertionError("the class's own code ran")


class Armed:
    """An object whose construction must not happen on reading."""

    def __init__(self) -> None:
        raise AssertionError("the constructor ran")

    def __setstate__(self, state: object) -> None:
        raise AssertionError("__setstate__ ran")


@pytest.fixture(autouse=True)
def _classes_of_this_module(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classes, "ALLOWED_PACKAGES", ("moto.", f"{__name__}:"))


def read_back(value: object) -> object:
    """The value after it was written as JSON and read."""
    encoder = Encoder()
    node = encoder.encode(value)
    node, records = msgspec.json.decode(msgspec.json.encode([node, encoder.records]))
    return Decoder(records).decode(node)


LEAVES = [
    None,
    True,
    7,
    2**80,
    0.1,
    "text",
    b"bytes",
    bytearray(b"x"),
    datetime(2026, 11, 26, 20, 0, 1, 5, UTC),
    date(2026, 11, 26),
    timedelta(days=1, microseconds=3),
    Decimal("1.10"),
    uuid.UUID(int=1),
    IPv4Address("127.0.0.1"),
    IPv4Network("127.0.0.0/8"),
    Colour.RED,
    Notice("terminate", 5.0),
    Node,
]


@pytest.mark.parametrize("value", LEAVES, ids=repr)
def test_a_value_without_parts_is_the_same_afterwards(value: object) -> None:
    assert read_back([value]) == [value]
    assert type(read_back(value)) is type(value)


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_floats_that_json_lacks_are_the_same_afterwards(value: float) -> None:
    assert str(read_back(value)) == str(value)


@pytest.mark.parametrize("kind", [threading.Lock, threading.RLock, threading.Condition])
def test_a_lock_is_free_afterwards(kind: type) -> None:
    lock = kind()
    with lock:
        copy = read_back(lock)
    assert type(copy) is type(lock)
    assert copy.acquire(blocking=False)  # type: ignore[attr-defined]


SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
KEYS = st.text() | st.integers() | st.tuples(st.text(), st.integers())
VALUES = st.recursive(
    SCALARS | st.binary(),
    lambda parts: (
        st.lists(parts, max_size=4)
        | st.dictionaries(KEYS, parts, max_size=4)
        | st.tuples(parts, parts)
        | st.sets(SCALARS, max_size=4)
        | st.frozensets(SCALARS, max_size=4)
        | st.lists(parts, max_size=3).map(deque)
    ),
    max_leaves=12,
)


@given(VALUES)
def test_any_nesting_of_containers_is_the_same_afterwards(value: object) -> None:
    try:
        msgspec.json.encode(str(value))
    except UnicodeEncodeError:
        return
    assert read_back(value) == value


def test_what_was_shared_is_shared_afterwards() -> None:
    shared: list[object] = [1]
    copy: Any = read_back((shared, {"a": shared}, [shared]))
    first, second, third = copy
    first.append(2)
    assert second == {"a": [1, 2]}
    assert third == [[1, 2]]


def test_cycles_are_cycles_afterwards() -> None:
    itself: list[object] = []
    itself.append(itself)
    copy = read_back(itself)
    assert copy[0] is copy  # type: ignore[index]
    mapping: dict[object, object] = {}
    mapping["self"] = mapping
    copy = read_back(mapping)
    assert copy["self"] is copy  # type: ignore[index]


def test_objects_keep_attributes_references_and_bound_methods() -> None:
    root, child = Node("root"), Node("child")
    child.parent, root.children = root, [child, child]
    copy = read_back(root)
    assert isinstance(copy, Node)
    assert (copy.name, copy.children[0].name) == ("root", "child")
    assert copy.children[0] is copy.children[1]
    assert copy.children[0].parent is copy
    assert copy.show() == "node root"


def test_a_chain_of_many_objects_needs_no_deep_recursion() -> None:
    first = last = Node("0")
    for number in range(1, 5000):
        last.parent = Node(str(number))
        last = last.parent
    copy = read_back(first)
    for _ in range(4999):
        copy = copy.parent  # type: ignore[attr-defined]
    assert copy.name == "4999"  # type: ignore[attr-defined]


def test_dictionaries_of_other_classes_keep_items_attributes_and_factory() -> None:
    table = Table()
    dict.__setitem__(table, "a", 1)
    table.region = "eu-west-1"  # type: ignore[attr-defined]
    copy = read_back(table)
    assert isinstance(copy, Table)
    assert (dict(copy), vars(copy)) == ({"a": 1}, {"region": "eu-west-1"})
    ordered = read_back(OrderedDict([("b", 1), ("a", 2)]))
    assert isinstance(ordered, OrderedDict)
    assert list(ordered) == ["b", "a"]
    nested: defaultdict[str, defaultdict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    nested["a"]["b"].append(1)
    tags = read_back(nested)
    tags["new"]["key"].append(2)  # type: ignore[index]
    assert tags == {"a": {"b": [1]}, "new": {"key": [2]}}


def test_a_set_of_objects_that_hash_by_their_attributes_is_complete() -> None:
    holder = Node("holder")
    holder.children = [holder]
    copy = read_back([{(holder, 1): "pair"}, {IPv4Address("127.0.0.1")}])
    ((owner, number),) = copy[0]  # type: ignore[index]
    assert (owner.name, number) == ("holder", 1)


def test_reading_runs_no_constructor_and_no_code_of_the_class() -> None:
    name = f"{__name__}:Armed"
    armed = Decoder([{"object": name, "state": {"a": 1}}]).decode({"ref": 0})
    assert isinstance(armed, Armed)
    assert vars(armed) == {"a": 1}


@pytest.mark.parametrize("value", [os.system, (print,), iter([]), Path(), {"a": object()}])
def test_a_value_of_an_unknown_type_is_refused(value: object) -> None:
    with pytest.raises(RecordError, match="cannot be recorded"):
        Encoder().encode(value)


HOSTILE: list[Json] = [
    {"object": "os:system", "state": {}},
    {"object": "subprocess:Popen", "state": {}},
    {"object": "builtins:dict", "state": {}},
    {"object": "moto.ec2.models:EC2Backend.__init__", "state": {}},
    {"object": "moto.no_such_module:X", "state": {}},
    {"object": "mesaform.localcloud.daemon:Running", "state": {}},
    {"object": f"{__name__}:Node", "state": {"show": {"method": [{"ref": 0}, "__class__"]}}},
    {"object": f"{__name__}:Node", "state": {"show": {"call": ["os:system", "true"]}}},
    {"object": f"{__name__}:Node", "state": {"a": {"ref": 9}}},
    {"object": f"{__name__}:Node", "state": {"a": {"ref": -1}}},
    {"object": f"{__name__}:Node", "state": {"a": {"enum": [f"{__name__}:Node", "x"]}}},
    {"object": f"{__name__}:Node", "state": {"a": {"struct": [f"{__name__}:Node", {}]}}},
    {"object": f"{__name__}:Node", "state": {"a": {"bytes": "?"}}},
    {"object": f"{__name__}:Node", "state": {"a": {"datetime": "today"}}},
    {"object": f"{__name__}:Node", "state": {"a": {}}},
    {"object": f"{__name__}:Node", "state": {"a": [1]}},
    {"object": f"{__name__}:Node", "state": [1]},
    {"object": f"{__name__}:Node"},
    {"object": 3, "state": {}},
    {"map": [1]},
    {"list": {"a": 1}},
    {"set": [{"list": []}]},
    {"tuple": []},
    [],
    None,
]


@pytest.mark.parametrize("record", HOSTILE, ids=repr)
def test_a_record_that_is_not_of_the_format_is_an_error(record: Json) -> None:
    with pytest.raises(RecordError):
        Decoder([record]).decode({"ref": 0})


def test_the_attributes_of_a_class_are_those_its_constructor_sets() -> None:
    assert initial_attributes(Node) == {"name", "parent", "children", "show"}
    assert initial_attributes(OrderedDict) == frozenset()
