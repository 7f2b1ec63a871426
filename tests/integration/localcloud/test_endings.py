"""How long terminated instances are listed."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

pytestmark = pytest.mark.slow


def test_a_terminated_instance_is_listed_for_an_hour_and_then_no_more() -> None:
    from mesaform.localcloud.moto_patches import states

    ended, running = SimpleNamespace(id="i-ended", ended_at=1000.0), SimpleNamespace(id="i-running")
    alone, mixed = (
        SimpleNamespace(id="r-1", instances=[ended]),
        SimpleNamespace(id="r-2", instances=[running]),
    )
    backend = SimpleNamespace(
        reservations={"r-1": alone, "r-2": mixed}, tags={"i-ended": {"a": "b"}, "i-running": {}}
    )
    assert not states.forget_ended(backend, 1000.0 + 3599)
    assert states.forget_ended(backend, 1000.0 + 3600)
    assert list(backend.reservations) == ["r-2"]
    assert list(backend.tags) == ["i-running"]
