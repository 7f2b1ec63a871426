"""Run times of apps, learned from tasks that ended. Pure."""

from __future__ import annotations

import math

WEIGHT = 0.3
"""Weight of the newest run time in an app's mean."""


class RunTimes:
    """Mean run time of each app's tasks, the newest weighing most."""

    def __init__(self) -> None:
        self._mean_s: dict[str, float] = {}

    def learn(self, app: str, ran_s: float) -> None:
        """Take in that a task of an app ended after so many seconds."""
        mean_s = self._mean_s.get(app)
        self._mean_s[app] = ran_s if mean_s is None else mean_s + WEIGHT * (ran_s - mean_s)

    def end_of(self, app: str, since: float, now: float) -> float:
        """When a task that started at `since` is expected to end; infinite for an unknown app.

        A task that outlives the mean is expected to run as long again as it has run.
        """
        mean_s = self._mean_s.get(app)
        if mean_s is None:
            return math.inf
        age_s = max(0.0, now - since)
        return since + (mean_s if age_s < mean_s else 2 * age_s)

    def forget(self, app: str) -> None:
        """Drop what is known of an app."""
        self._mean_s.pop(app, None)
