"""Folders of ended machines go after a bounded time and size; their consoles stay."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from mesaform.common.files import LOG_CAP_BYTES
from mesaform.localcloud.layout import Layout
from mesaform.localcloud.protocol import World
from mesaform.localcloud.storage import CONSOLE_BYTES, MachineFiles, Retention

NOW = 10_000.0
SMALL = Retention(max_s=100.0, max_bytes=3000, max_consoles=2)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    layout = Layout(tmp_path)
    layout.create()
    return layout


def ended(layout: Layout, name: str, *, seconds_ago: float, size: int = 1000) -> Path:
    """The folder of a machine that ended."""
    folder = layout.machine(name)
    (folder / "sandbox").mkdir(parents=True)
    (folder / "sandbox" / "stdout").write_bytes(bytes(size))
    (folder / "console.log").write_bytes(b"x" * 10 + name.encode())
    os.utime(folder, (NOW - seconds_ago, NOW - seconds_ago))
    return folder


def world(*known: str) -> World:
    return World("a-1", (), known, (), (), 0.0)


def clean(layout: Layout, seen: World, running: set[str]) -> None:
    machines = MachineFiles(layout, SMALL)
    machines.clean(machines.folders(seen, running), seen.known, NOW)


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def test_the_folder_of_an_ended_machine_stays_for_a_while_and_then_only_its_console(
    layout: Layout,
) -> None:
    young = ended(layout, "i-young", seconds_ago=50)
    old = ended(layout, "i-old", seconds_ago=150)
    clean(layout, world("i-young", "i-old"), set())
    assert files(young) == ["console.log", "sandbox"]
    assert files(old) == ["console.log"]


def test_the_oldest_folders_go_first_when_they_are_too_large_together(layout: Layout) -> None:
    folders = [ended(layout, f"i-{age}", seconds_ago=age, size=1400) for age in (10, 20, 30)]
    clean(layout, world("i-10", "i-20", "i-30"), set())
    assert [len(files(folder)) for folder in folders] == [2, 2, 1]


def test_a_machine_that_runs_keeps_its_folder(layout: Layout) -> None:
    folder = ended(layout, "i-adopted", seconds_ago=10_000)
    clean(layout, world(), {"i-adopted"})
    assert files(folder) == ["console.log", "sandbox"]


def test_of_a_machine_that_is_no_longer_listed_the_end_of_its_console_stays(
    layout: Layout,
) -> None:
    folder = ended(layout, "i-gone", seconds_ago=10)
    (folder / "console.log").write_bytes(b"x" * CONSOLE_BYTES + b"the end")
    clean(layout, world(), set())
    assert not folder.exists()
    kept = layout.consoles / "i-gone.log"
    assert kept.stat().st_size == CONSOLE_BYTES
    assert kept.read_bytes().endswith(b"the end")
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600


def test_only_the_newest_consoles_stay(layout: Layout) -> None:
    for number in range(4):
        ended(layout, f"i-{number}", seconds_ago=1)
        clean(layout, world(), set())
        path = layout.consoles / f"i-{number}.log"
        os.utime(path, (NOW + number, NOW + number))
    clean(layout, world(), set())
    assert files(layout.consoles) == ["i-2.log", "i-3.log"]


def test_the_console_of_a_machine_that_runs_has_a_limit(layout: Layout) -> None:
    layout.machine("i-runs").mkdir()
    console, small = layout.console("i-runs"), layout.log / "endpoint.log"
    console.write_bytes(bytes(LOG_CAP_BYTES + 1))
    small.write_bytes(b"x")
    MachineFiles(layout).rotate({"i-runs", "i-without-a-folder"})
    assert (console.stat().st_size, small.stat().st_size) == (0, 1)
    assert console.with_name("console.log.1").stat().st_size == LOG_CAP_BYTES + 1
