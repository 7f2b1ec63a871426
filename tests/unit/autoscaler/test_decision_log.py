"""Decisions as `mesaform why` prints them: decisions of one pass in one line, and selections."""

from __future__ import annotations

from typing import Any

from harness.autoscaler_builders import NOW, a_spec, queued
from mesaform.autoscaler.model.decision import Decision, DemandCount, Kind
from mesaform.autoscaler.model.reason import Reason, ReasonCode
from mesaform.autoscaler.reporting.decision_log import Selection, lines_of, select
from tests.unit.autoscaler.world import World

TYPES = {"i-1": "m5.2xlarge", "i-2": "m5.2xlarge", "i-3": "m5.xlarge"}


def removal(
    kind: Kind,
    name: str,
    at: float,
    reason: Reason | None = None,
    usd: float = 0.0,
) -> dict[str, object]:
    return Decision(
        at,
        kind,
        (reason or idle(6),),
        machines=(name,),
        agents=(f"S-{name}",),
        offering=f"{TYPES[name]}/us-east-1a/on-demand",
        usd_per_hour=usd,
    ).record()


def idle(idle_s: float) -> Reason:
    return Reason.of(ReasonCode.IDLE, idle_s=idle_s, idle_after_s=5.0)


def test_what_was_done_in_one_pass_for_one_reason_is_one_line():
    (line,) = lines_of([removal("deactivate", name, NOW) for name in TYPES])
    assert line.what == "3 machines: 2 x m5.2xlarge, 1 x m5.xlarge deactivated"
    assert line.reasons == ["no task for 6 s (idle_after_s 5)"]


def purchase(zone: str, instance_type: str, item: str = "spark/train") -> dict[str, object]:
    return Decision(
        NOW,
        "buy",
        (Reason.of(ReasonCode.QUEUE_REPORTED, path="/demand", count=3),),
        pool="default",
        offering=f"{instance_type}/{zone}/on-demand",
        count=1,
        demand=(DemandCount(item, 1),),
    ).record()


def test_the_purchases_of_one_pass_are_one_line_with_all_their_machines():
    places = [("a", "c5.xlarge"), ("b", "c5.xlarge"), ("c", "m5.large")]
    (line,) = lines_of([purchase(f"us-east-1{zone}", name) for zone, name in places])
    assert line.what == "2 x c5.xlarge, 1 x m5.large for pool default"


def test_a_framework_and_what_it_waits_for_select_its_purchases():
    rows = [
        purchase("us-east-1a", "m5.large", name) for name in ("spark/train", "/train", "other/x")
    ]
    for subject in ("spark", "train", "spark/train"):
        assert select(rows, Selection(subject)) == rows[:1]


def test_reasons_that_differ_in_a_number_give_its_range():
    rows = [removal("deactivate", name, NOW, idle(6 + number)) for number, name in enumerate(TYPES)]
    (line,) = lines_of(rows)
    assert line.reasons == ["no task for 6 to 8 s (idle_after_s 5)"]


def test_the_steps_of_a_removal_are_one_line_with_their_times_and_dollars():
    steps: list[tuple[Any, float]] = [
        (kind, 2.0 * number) for number, kind in enumerate(("deactivate", "drain", "terminate"))
    ]
    (line,) = lines_of(
        [
            removal(kind, name, NOW + at, usd=-0.1 if kind == "terminate" else 0)
            for kind, at in steps
            for name in TYPES
        ]
    )
    assert (
        line.what == "3 machines: 2 x m5.2xlarge, 1 x m5.xlarge deactivated, drained after 2 s,"
        " terminated after 4 s"
    )
    assert line.usd_per_hour == -0.3


def test_equal_removals_of_several_passes_are_one_line_that_says_over_how_long():
    steps: list[tuple[Any, float]] = [
        (kind, 2.0 * number) for number, kind in enumerate(("deactivate", "drain", "terminate"))
    ]
    rows = [
        removal(kind, name, NOW + 13 * turn + at)
        for turn, name in enumerate(TYPES)
        for kind, at in steps
    ]
    (line,) = lines_of(rows)
    assert line.what.endswith(
        "deactivated, drained after 2 s, terminated after 4 s; one after another within 26 s"
    )


def test_a_machine_taken_back_ends_its_removals_line():
    story = lines_of(
        [
            removal("deactivate", "i-1", NOW),
            removal("reactivate", "i-1", NOW + 2, Reason.of(ReasonCode.DEMAND_RETURNED)),
            removal("deactivate", "i-1", NOW + 90),
            removal("drain", "i-1", NOW + 92),
        ]
    )
    assert [line.kind for line in story] == ["deactivate", "reactivate", "deactivate"]
    assert "drained after 2 s" in story[2].what


def test_another_reason_in_the_same_pass_is_another_line():
    assert (
        len(
            lines_of(
                [
                    removal("deactivate", "i-1", NOW),
                    removal("deactivate", "i-2", NOW, Reason.of(ReasonCode.TASK_STARTED)),
                ]
            )
        )
        == 2
    )


def test_a_burst_and_its_decline_fit_on_a_screen_and_no_row_is_lost():
    world = World(a_spec(idle_after_s=10))
    for count in (40, 90, 60, 30, 10, 0):
        world.want(queued("/web", count=count))
        world.run(40)
    rows = [decision.record() for decision in world.decisions]
    story = lines_of(rows)
    assert len(rows) > 24
    assert len(story) <= 12
    assert sum(len(line.rows) for line in story) == len(rows)


def test_an_app_selects_its_purchases_and_not_those_of_an_app_whose_name_begins_alike():
    def bought(app: str) -> dict:
        reason = Reason.of(ReasonCode.DEMAND_QUEUED, app=app, count=4, wait_s=3.0)
        return Decision(NOW, "buy", (reason,), count=1, demand=(DemandCount(app, 4),)).record()

    rows = [bought("/web"), bought("/web/api"), bought("/my/web")]
    assert select(rows, Selection("/web")) == rows[:1]
    assert select(rows, Selection("web_api.instance-1f._app.1")) == rows[1:2]


def test_an_agent_and_its_instance_select_the_same_decisions():
    rows = [removal("deactivate", "i-1", NOW), removal("deactivate", "i-2", NOW)]
    bought = Decision(NOW - 9, "buy", machines=("i-1", "i-9")).record()
    assert select([bought, *rows], Selection("i-1")) == [bought, rows[0]]
    assert select([bought, *rows], Selection("S-i-1")) == [bought, rows[0]]


def test_decisions_are_selected_by_kind_and_by_reason_code():
    rows = [
        removal("deactivate", "i-1", NOW),
        removal("drain", "i-1", NOW + 2),
        removal("reactivate", "i-2", NOW + 4, Reason.of(ReasonCode.DEMAND_RETURNED)),
    ]
    assert select(rows, Selection(kind="drain")) == rows[1:2]
    assert select(rows, Selection(reason="idle")) == rows[:2]
    assert select(rows, Selection(subject="i-2", reason="idle")) == []


def test_a_subject_matches_pools_and_parameters_of_reasons():
    reason = Reason.of(ReasonCode.DEMAND_DISPLACED, app="/web", instance_id="i-7")
    row = Decision(NOW, "buy", (reason,), pool="default").record()
    assert select([row], Selection("i-7")) == [row]
    assert select([row], Selection("default")) == [row]
    assert select([row], Selection("i-70")) == []
