"""Files that were set aside on the operator's machine are listed, put back and removed."""

from __future__ import annotations

from pathlib import Path

import pytest

from mesaform.cli.record_stores import FileRecords, find
from mesaform.common.errors import Busy, NotFound


@pytest.fixture
def files(tmp_path: Path) -> FileRecords:
    for name in (
        "clusters/toy/masters.tfstate.unreadable-1764100000",
        "local/endpoint.json.set-aside",
        "local/account/ec2.json.set-aside-2",
        "local/account/account-unreadable-20261126.json",
        "local/account/account.json",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return FileRecords(tmp_path)


def test_every_file_that_was_set_aside_is_listed_with_its_place(files: FileRecords) -> None:
    assert {entry.name: Path(entry.place).name for entry in files.entries()} == {
        "clusters/toy/masters.tfstate.unreadable-1764100000": "masters.tfstate",
        "local/endpoint.json.set-aside": "endpoint.json",
        "local/account/ec2.json.set-aside-2": "ec2.json",
        "local/account/account-unreadable-20261126.json": "account.json",
    }


def test_a_file_is_put_back_over_a_new_one_only_on_demand(files: FileRecords) -> None:
    name = "local/account/account-unreadable-20261126.json"
    store, entry = find([files], f"files/{name}")
    with pytest.raises(Busy):
        store.restore(entry, replace=False)
    store.restore(entry, replace=True)
    assert (files.folder / "local/account/account.json").read_text() == name
    store, entry = find([files], "files/local/endpoint.json.set-aside")
    store.remove(entry)
    with pytest.raises(NotFound):
        find([files], entry.id)
