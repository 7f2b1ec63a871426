"""What the simulated weeks were like, learned as the daemon learns it.

Between two looks nothing changes here, so gaps are filled in.
"""

from __future__ import annotations

from collections.abc import Mapping

from mesaform.autoscaler.demand.scheduled import levels
from mesaform.autoscaler.demand.usage import in_use
from mesaform.autoscaler.forecasting import weekly_profile
from mesaform.autoscaler.forecasting.weekly_profile import MONDAY_S, SLOT_S
from mesaform.autoscaler.model.snapshot import Snapshot
from mesaform.autoscaler.model.weekly_profile import Level, Profile


class Weeks:
    """The profile of a run so far."""

    def __init__(self) -> None:
        self._known = Profile()
        self._levels: Mapping[str, Level] = {}
        self._at: float | None = None

    def learn(self, snapshot: Snapshot, now: float) -> Profile:
        """Take in a look at the world."""
        if self._at is not None:
            self._fill(self._at, now)
        self._levels, self._at = levels(in_use(snapshot, ())), now
        self._known = weekly_profile.learn(self._known, self._levels, now)
        return self._known

    def _fill(self, since: float, now: float) -> None:
        """What ran at the last look ran on until this one."""
        for slot in range(weekly_profile.slot_number(since), weekly_profile.slot_number(now) + 1):
            start = slot * SLOT_S - MONDAY_S
            for at in (start, start + SLOT_S - 1e-3):
                if since < at < now:
                    self._known = weekly_profile.learn(self._known, self._levels, at)
