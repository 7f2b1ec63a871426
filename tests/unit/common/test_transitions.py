from __future__ import annotations

import pytest

from mesaform.common.transitions import TransitionTable, UnknownTransition

DOOR = TransitionTable("door", {("closed", "open"): "opened", ("opened", "close"): "closed"})


def test_the_table_gives_the_next_state():
    assert DOOR.next_state("closed", "open") == "opened"
    assert DOOR.allows("opened", "close")


def test_an_unknown_event_is_an_error_with_the_history():
    with pytest.raises(UnknownTransition, match="door: open in state opened") as caught:
        DOOR.next_state("opened", "open", history=["closed", "opened"])
    assert caught.value.where == "closed > opened"
    assert not DOOR.allows("opened", "open")
