"""Value of the weekly profile: simulated office weeks with and without buying ahead.

Two weeks are learned, one is measured.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import pytest

from mesaform.autoscaler.forecasting.weekly_profile import MONDAY_S, WEEK_S
from mesaform.autoscaler.model.shape import make
from mesaform.simulator.comparison import catalogue_of
from mesaform.simulator.market import Market, Settings
from mesaform.simulator.mesaform_policy import Mesaform
from mesaform.simulator.trace import Task, Trace
from mesaform.simulator.world import EPOCH, World
from tests.unit.simulator.builders import a_policy

pytestmark = pytest.mark.slow
DAY_S, HOUR_S = 86_400.0, 3_600.0
FIRST_MONDAY_S = -(EPOCH + MONDAY_S) % WEEK_S
WEEKS, LEARNED = 3, 2


def office_weeks(seed: int, holiday: int | None = None) -> Trace:
    """On working days about 24 services run from nine to five; about eight jobs come at 12 and 15.

    Two jobs a day come at random times. Working day `holiday` of the last week has no work.
    """
    chance = random.Random(seed)
    tasks: list[Task] = []

    def add(at: float, runs_s: float, *, service: bool) -> None:
        tasks.append(
            Task(
                f"t{len(tasks)}",
                "service" if service else "job",
                make(1, 2048),
                at,
                max(60.0, runs_s),
                service,
            )
        )

    for day in range(WEEKS * 7):
        start = FIRST_MONDAY_S + day * DAY_S
        for _ in range(2):
            add(start + chance.uniform(0, DAY_S), chance.uniform(600, 3600), service=False)
        if day % 7 < 5 and not (day // 7 == WEEKS - 1 and day % 7 == holiday):
            for _ in range(round(chance.gauss(24, 3))):
                add(
                    start + 9 * HOUR_S + chance.uniform(0, 300),
                    8 * HOUR_S + chance.gauss(0, 900),
                    service=True,
                )
            for hour in (12, 15):
                for _ in range(round(chance.gauss(8, 2))):
                    add(
                        start + hour * HOUR_S + chance.uniform(0, 120),
                        chance.uniform(1200, 2400),
                        service=False,
                    )
    return Trace("office", tuple(sorted(tasks, key=lambda task: task.at)))


@dataclass(frozen=True)
class Worth:
    wait_p95_s: float
    wait_mean_s: float
    usd: float


def worth(trace: Trace, **autoscaler: object) -> Worth:
    settings = {"idle_after_s": 300.0, "boot_timeout_s": 600.0, **autoscaler}
    policy = a_policy(autoscaler=settings, count=1)
    catalogue = catalogue_of(policy)
    world = World(trace, catalogue, Market(Settings(seed=3, boot_s=120.0)), {"default": {}})
    world.add(
        "default", next(item for item in catalogue["default"] if item.capacity == "on-demand"), 1
    )
    figures = world.run(Mesaform("ours", policy.spec, catalogue)).figures()
    measured = FIRST_MONDAY_S + LEARNED * WEEK_S
    waits = sorted(work.waited_s for work in world.work if work.task.at >= measured)
    return Worth(waits[math.ceil(0.95 * len(waits)) - 1], sum(waits) / len(waits), figures.usd)


@pytest.fixture(scope="module")
def usual() -> tuple[Worth, Worth]:
    """Weeks like any other, without and with buying ahead."""
    trace = office_weeks(1)
    return worth(trace), worth(trace, profile={"enabled": True})


def test_buying_ahead_of_usual_weeks_ends_most_waiting_for_less_than_a_tenth_more(usual):
    without, ahead = usual
    assert without.wait_p95_s > 120
    assert ahead.wait_p95_s < without.wait_p95_s / 10
    assert ahead.wait_mean_s < without.wait_mean_s / 10
    assert ahead.usd < without.usd * 1.1


def test_a_holiday_costs_no_more_than_an_hour_of_a_working_day(usual):
    trace = office_weeks(1, holiday=2)
    without, ahead = worth(trace), worth(trace, profile={"enabled": True})
    working_hour_usd = 24 * 0.048  # what 24 tasks of a cpu take of m5 machines in an hour
    assert ahead.usd - without.usd < usual[1].usd - usual[0].usd + working_hour_usd
    assert ahead.wait_p95_s < without.wait_p95_s / 10
