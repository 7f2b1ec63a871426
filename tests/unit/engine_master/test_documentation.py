"""docs/engine.md has the present events, handlers and effects."""

from __future__ import annotations

from mesaform.engine.agent import events as agent_events
from mesaform.engine.master import core, events
from tests.support import core_tables


def test_the_tables_of_the_cores_are_up_to_date():
    text = core_tables.DOCUMENT.read_text(encoding="utf-8")
    assert text == core_tables.with_tables(text), "run python -m tests.support.core_tables"


def test_every_event_of_the_master_has_a_handler():
    assert set(core.HANDLERS) == set(events.Event.__args__)


def test_every_effect_is_emitted_by_some_handler():
    for effects, table in (
        (events.Effect, core_tables.master_tables()),
        (agent_events.Effect, core_tables.agent_table()),
    ):
        for effect in effects.__args__:
            assert f"`{effect.__name__}`" in table
