"""The record of a machine's process."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from mesaform.common import proc
from mesaform.localcloud import boot
from mesaform.localcloud.layout import Layout

MACHINE = "i-0123456789abcdef0"


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path)
    layout.machine(MACHINE).mkdir(parents=True)
    return layout


def test_a_process_is_recorded_with_its_schema_and_read_again(layout):
    written = boot.write_record(layout, MACHINE, os.getpid(), boots=2)
    document = json.loads((layout.machine(MACHINE) / "machine.json").read_bytes())
    assert document["schema"] == "local.machine/1"
    assert boot.read_record(layout, MACHINE) == written


def test_a_record_of_a_release_without_schemas_is_read(layout):
    old = {"pid": 7, "started": 8, "boots": 1, "boot_id": proc.boot_id()}
    (layout.machine(MACHINE) / "machine.json").write_text(json.dumps(old))
    record = boot.read_record(layout, MACHINE)
    assert record is not None
    assert (record.pid, record.boots) == (7, 1)


@pytest.mark.parametrize("damaged", [b"", b"garbage", b'{"schema":"local.machine/9"}'])
def test_a_record_that_cannot_be_read_is_set_aside(layout, damaged):
    path = layout.machine(MACHINE) / "machine.json"
    path.write_bytes(damaged)
    assert boot.read_record(layout, MACHINE) is None
    assert not path.exists()
    assert [item.read_bytes() for item in path.parent.glob("machine.json.set-aside*")] == [damaged]
