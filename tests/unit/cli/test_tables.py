"""Tables on narrow terminals: whole columns are removed, and no value is cut."""

from __future__ import annotations

import pytest
from rich.console import Console

from mesaform.cli.tables import fitted, show
from tests.unit.cli.test_view import picture

ROW = {
    "agent": "i-0123456789abcdef0",
    "address": "127.42.10.123",
    "state": "deactivated",
    "by": "autoscaler",
    "$/h": "$0.3840",
}


def printed(width: int, *leave_out: str) -> str:
    console = Console(width=width, force_terminal=False)
    with console.capture() as capture:
        console.print(fitted([ROW], width, right=["$/h"], leave_out=leave_out))
    return capture.get()


def test_a_wide_terminal_shows_every_column():
    assert all(value in printed(100, "by", "address") for value in ROW.values())


@pytest.mark.parametrize("width", [68, 60, 50, 45])
def test_a_narrow_terminal_shows_fewer_columns_in_full(width: int):
    shown = printed(width, "by", "address")
    assert "…" not in shown
    assert all(ROW[column] in shown for column in ("agent", "state", "$/h"))
    assert ("address" in shown) >= ("by" in shown)
    assert "autoscaler" not in shown


def test_status_fits_80_columns():
    console = Console(width=80, force_terminal=False)
    with console.capture() as capture:
        for part in show(picture(), console.width):
            console.print(part)
    lines = capture.get().splitlines()
    assert "…" not in capture.get()
    assert max(map(len, lines)) <= 80
    assert any("i-a1" in line and "active" in line for line in lines)
