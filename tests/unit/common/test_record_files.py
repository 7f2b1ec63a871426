"""A file that cannot be read is kept below another name, and its reader goes on."""

from __future__ import annotations

import stat

import msgspec
import pytest

from mesaform.common.errors import Busy
from mesaform.common.record_files import (
    files_set_aside,
    peek_record,
    read_record,
    restore_file,
    write_record,
)
from mesaform.common.records import Codec, Problem, Unreadable
from mesaform.common.set_aside import SetAsideLog, metric_lines


class Endpoint(msgspec.Struct):
    port: int


CODEC = Codec("test.endpoint", Endpoint)


def test_a_record_in_a_file_is_private_and_read_again(tmp_path):
    path = tmp_path / "endpoint.json"
    assert read_record(path, CODEC, "endpoint", SetAsideLog()) is None
    write_record(path, CODEC, Endpoint(4566))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read_record(path, CODEC, "endpoint", SetAsideLog()) == Endpoint(4566)


@pytest.mark.parametrize("data", [b"", b"null", b'{"schema":"test.endpoint/2"}', b" " * 2**21])
def test_a_file_that_cannot_be_read_is_renamed_and_counted_once(tmp_path, data):
    path, log = tmp_path / "endpoint.json", SetAsideLog()
    path.write_bytes(data)
    peeked = peek_record(path, CODEC)
    assert isinstance(peeked, Unreadable)
    assert read_record(path, CODEC, "endpoint", log) == peeked
    assert read_record(path, CODEC, "endpoint", log) is None
    assert (tmp_path / "endpoint.json.set-aside").read_bytes() == data
    assert metric_lines(log.counts)[-1] == 'mesaform_records_set_aside_total{kind="endpoint"} 1'


def test_every_file_that_was_set_aside_is_kept_and_listed(tmp_path):
    path, log = tmp_path / "endpoint.json", SetAsideLog()
    for data in (b"first", b"second"):
        path.write_bytes(data)
        read_record(path, CODEC, "endpoint", log)
    listed = list(files_set_aside(tmp_path, "endpoint"))
    assert [entry.id for entry in listed] == [
        "endpoint/endpoint.json.set-aside",
        "endpoint/endpoint.json.set-aside-2",
    ]
    assert {entry.place for entry in listed} == {str(path)}
    assert {entry.problem for entry in listed} == {Problem.UNREADABLE}


def test_a_file_is_put_back_unless_a_new_one_has_its_name(tmp_path):
    path = tmp_path / "endpoint.json"
    path.write_bytes(b"first")
    read_record(path, CODEC, "endpoint", SetAsideLog())
    write_record(path, CODEC, Endpoint(1))
    with pytest.raises(Busy):
        restore_file(tmp_path / "endpoint.json.set-aside")
    path.unlink()
    assert restore_file(tmp_path / "endpoint.json.set-aside") == path
    assert path.read_bytes() == b"first"
