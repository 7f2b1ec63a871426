"""A record is read whole or not at all, and what is written can be read."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesaform.common.records import (
    DOCUMENT_LIMIT_BYTES,
    ZOOKEEPER_LIMIT_BYTES,
    Codec,
    Problem,
    RecordRefused,
    Unreadable,
)

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]


class Disk(msgspec.Struct):
    name: str
    used: Share = 0.0


@dataclass(frozen=True)
class Machine:
    zone: str
    disks: tuple[Disk, ...] = ()


DISK = Codec("test.disk", Disk)
VALUES: dict[str, tuple[Codec[Any], object]] = {
    "a structure": (DISK, Disk("sda", 0.5)),
    "a structure without fields that are set": (Codec("test.any", Machine), Machine("a")),
    "a dataclass": (Codec("test.machine", Machine), Machine("a", (Disk("sda"),))),
    "a list": (Codec("test.names", list[str]), ["a", "b"]),
    "a dictionary with any keys": (Codec("test.map", dict[str, int]), {"schema": 1, "value": 2}),
    "a string": (Codec("test.text", str), "framework-1"),
    "a compressed document": (
        Codec("test.long", list[str], compress_above_bytes=100),
        ["the same"] * 100,
    ),
}


def problem_of(value: object) -> Problem:
    assert isinstance(value, Unreadable)
    return value.problem


@pytest.mark.parametrize("name", VALUES)
def test_a_value_is_read_as_it_was_written(name):
    codec, value = VALUES[name]
    assert codec.decode(codec.encode(value)) == value


def test_a_record_names_its_schema_and_version():
    assert DISK.encode(Disk("sda")) == b'{"schema":"test.disk/1","name":"sda","used":0.0}'


def test_a_document_without_a_schema_is_read():
    assert DISK.decode(b'{"name":"sda","used":0.5}') == Disk("sda", 0.5)
    assert Codec("test.names", list[str]).decode(b'["a"]') == ["a"]


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", Problem.UNREADABLE),
        (b"null", Problem.UNREADABLE),
        (b"garbage", Problem.UNREADABLE),
        (b'{"name":"sda"', Problem.UNREADABLE),
        (b'{"name":"sda"} trailing', Problem.UNREADABLE),
        (b'{"name":1}', Problem.UNREADABLE),
        (b'{"name":"sda","used":2}', Problem.UNREADABLE),
        (b'{"name":"sda","used":NaN}', Problem.UNREADABLE),
        (b'{"name":"sda","used":1e400}', Problem.UNREADABLE),
        (b'{"name":"sda","used":' + b"9" * 5000 + b"}", Problem.UNREADABLE),
        (b'{"schema":"test.machine/1","name":"sda"}', Problem.UNREADABLE),
        (b'{"schema":"test.disk/0","name":"sda"}', Problem.UNREADABLE),
        (b'{"schema":7,"name":"sda"}', Problem.UNREADABLE),
        (b'{"schema":"test.disk/2","disk":"sda"}', Problem.NEWER),
        (b'{"schema":"test.disk/999999999"}', Problem.NEWER),
        (b" " * (2 * 1024 * 1024), Problem.TOO_LARGE),
        (zlib.compress(b" " * (DOCUMENT_LIMIT_BYTES + 1)), Problem.TOO_LARGE),
        (zlib.compress(b'{"name":"sda"}')[:-3], Problem.UNREADABLE),
        (b'{"more":' + b"[" * 100_000, Problem.UNREADABLE),
        (b"x\x9c", Problem.UNREADABLE),
        (b'{"name":"\xff"}', Problem.UNREADABLE),
    ],
)
def test_what_cannot_be_read_is_a_value_with_its_reason(data, problem):
    assert problem_of(DISK.decode(data)) is problem


@given(st.binary(max_size=200))
def test_no_bytes_make_a_codec_raise(data):
    for codec, _ in VALUES.values():
        codec.decode(data)
        codec.decode(zlib.compress(data))


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(st.sampled_from(["schema", "value", "name", "used", "disks"]), inner)
        ),
        max_leaves=10,
    )
)
def test_no_json_makes_a_codec_or_an_upgrade_raise(document):
    def upgrade(old):
        return {"name": old["disks"][0]["name"].strip()}

    codec = Codec("test.disk", Disk, 2, upgrades={1: upgrade})
    data = msgspec.json.encode(document)
    for head in (b"", b'{"schema":"test.disk/1",', b'{"schema":"test.disk/2",'):
        codec.decode(head + data[1:] if head else data)


def test_an_earlier_version_is_converted_step_by_step():
    codec = Codec(
        "test.disk",
        Disk,
        version=3,
        upgrades={
            0: lambda old: {"label": old["n"]},  # type: ignore[index, call-overload]
            2: lambda old: {"name": old["label"]},  # type: ignore[index, call-overload]
        },
    )
    assert codec.decode(b'{"n":"sda"}') == Disk("sda")
    assert codec.decode(b'{"schema":"test.disk/2","label":"sdb"}') == Disk("sdb")
    assert codec.decode(b'{"schema":"test.disk/3","name":"sdc"}') == Disk("sdc")


@pytest.mark.parametrize(
    "value", [Disk("sda", float("nan")), Disk("sda", float("inf")), Disk("", 2)]
)
def test_a_value_that_its_reader_would_refuse_is_not_written(value):
    with pytest.raises(RecordRefused):
        DISK.encode(value)


def test_a_record_that_zookeeper_would_refuse_is_not_written():
    with pytest.raises(RecordRefused):
        DISK.encode(Disk("n" * ZOOKEEPER_LIMIT_BYTES))
    DISK.encode(Disk("n" * (ZOOKEEPER_LIMIT_BYTES - 100)))


@pytest.mark.parametrize(
    "make",
    [
        lambda: Codec("Not a name", Disk),
        lambda: Codec("a.b", msgspec.defstruct("Own", [("schema", str)])),
        lambda: Codec("a.b", msgspec.defstruct("Strict", [], forbid_unknown_fields=True)),
    ],
)
def test_a_type_that_could_not_name_its_schema_is_refused(make):
    with pytest.raises(TypeError):
        make()
