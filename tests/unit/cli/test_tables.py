"""Tables on narrow terminals: columns give way whole, and nothing is cut."""

from __future__ import annotations

import pytest
from rich.console import Console

from mesaform.cli.tables import fitted

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
def test_on_a_narrow_one_columns_go_in_the_order_given_and_what_stays_is_whole(width: int):
    shown = printed(width, "by", "address")
    assert "…" not in shown
    assert all(ROW[column] in shown for column in ("agent", "state", "$/h"))
    assert ("address" in shown) >= ("by" in shown)
    assert "autoscaler" not in shown
