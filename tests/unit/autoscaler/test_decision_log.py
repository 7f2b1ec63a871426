"""Decisions as `mesaform why` tells them: together what was done together, and only what concerns a subject."""

from __future__ import annotations

from mesaform.autoscaler.reporting.decision_log import subject_rows, tell
from tests.unit.autoscaler.builders import NOW, a_spec, queued
from tests.unit.autoscaler.world import World

TYPES = {"i-1": "m5.2xlarge", "i-2": "m5.2xlarge", "i-3": "m5.xlarge"}


def removal(
    kind: str,
    name: str,
    at: float,
    reason: str = "no task for 6 s (idle_after_s 5)",
    usd: float = 0.0,
) -> dict:
    return {
        "kind": "decision",
        "decision": kind,
        "at": at,
        "what": f"{name} ({TYPES[name]})",
        "reasons": [reason],
        "machines": [name],
        "agents": [f"S-{name}"],
        "offering": f"{TYPES[name]}/us-east-1a/on-demand",
        "usd_per_hour": usd,
    }


def test_what_was_done_in_one_pass_for_one_reason_is_one_line():
    (line,) = tell([removal("deactivate", name, NOW) for name in TYPES])
    assert line.what == "3 machines: 2 x m5.2xlarge, 1 x m5.xlarge deactivated"
    assert line.reasons == ["no task for 6 s (idle_after_s 5)"]


def test_reasons_that_differ_in_a_number_give_its_range():
    rows = [
        removal("deactivate", name, NOW, f"no task for {6 + number} s (idle_after_s 5)")
        for number, name in enumerate(TYPES)
    ]
    (line,) = tell(rows)
    assert line.reasons == ["no task for 6 to 8 s (idle_after_s 5)"]


def test_the_steps_of_a_removal_are_one_line_with_their_times_and_dollars():
    steps = [
        (kind, 2.0 * number) for number, kind in enumerate(("deactivate", "drain", "terminate"))
    ]
    (line,) = tell(
        [
            removal(kind, name, NOW + at, usd=-0.1 if kind == "terminate" else 0)
            for kind, at in steps
            for name in TYPES
        ]
    )
    assert (
        line.what
        == "3 machines: 2 x m5.2xlarge, 1 x m5.xlarge deactivated, drained after 2 s, terminated after 4 s"
    )
    assert line.usd_per_hour == -0.3


def test_equal_removals_of_several_passes_are_one_line_that_says_over_how_long():
    steps = [
        (kind, 2.0 * number) for number, kind in enumerate(("deactivate", "drain", "terminate"))
    ]
    rows = [
        removal(kind, name, NOW + 13 * turn + at)
        for turn, name in enumerate(TYPES)
        for kind, at in steps
    ]
    (line,) = tell(rows)
    assert line.what.endswith(
        "deactivated, drained after 2 s, terminated after 4 s; one after another within 26 s"
    )


def test_a_machine_taken_back_ends_its_removals_line():
    story = tell(
        [
            removal("deactivate", "i-1", NOW),
            removal("reactivate", "i-1", NOW + 2, "demand returned"),
            removal("deactivate", "i-1", NOW + 90),
            removal("drain", "i-1", NOW + 92),
        ]
    )
    assert [line.kind for line in story] == ["deactivate", "reactivate", "deactivate"]
    assert "drained after 2 s" in story[2].what


def test_another_reason_in_the_same_pass_is_another_line():
    assert (
        len(
            tell(
                [
                    removal("deactivate", "i-1", NOW),
                    removal("deactivate", "i-2", NOW, "3% in use for 900 s"),
                ]
            )
        )
        == 2
    )


def test_a_burst_and_its_decline_are_told_on_one_screen_and_no_row_is_lost():
    world = World(a_spec(idle_after_s=10))
    for count in (40, 90, 60, 30, 10, 0):
        world.want(queued("/web", count=count))
        world.run(40)
    rows = [decision.record() for decision in world.decisions]
    story = tell(rows)
    assert len(rows) > 24
    assert len(story) <= 12
    assert sum(len(line.rows) for line in story) == len(rows)


def test_an_app_is_told_what_was_bought_for_it_and_not_what_was_bought_for_one_whose_name_begins_alike():
    def bought(app: str) -> dict:
        return {
            "kind": "decision",
            "decision": "buy",
            "at": NOW,
            "what": "1 x m5.large",
            "reasons": [f"{app} waits for 3 s"],
            "demand": [f"4 x {app}"],
        }

    rows = [bought("/web"), bought("/web/api"), bought("/my/web")]
    assert subject_rows(rows, "/web") == rows[:1]
    assert subject_rows(rows, "web_api.instance-1f._app.1") == rows[1:2]


def test_an_agent_and_its_machine_have_one_story():
    rows = [removal("deactivate", "i-1", NOW), removal("deactivate", "i-2", NOW)]
    bought = {
        "kind": "decision",
        "decision": "buy",
        "at": NOW - 9,
        "what": "2 x m5.2xlarge",
        "reasons": [],
        "machines": ["i-1", "i-9"],
    }
    assert subject_rows([bought, *rows], "i-1") == [bought, rows[0]]
    assert subject_rows([bought, *rows], "S-i-1") == [bought, rows[0]]
