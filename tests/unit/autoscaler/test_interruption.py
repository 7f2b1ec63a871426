"""Machines with an announced end: purchases, drains and exceptions, step by step."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from harness.autoscaler_builders import (
    NOW,
    ZONES,
    a_machine,
    a_reason,
    a_snapshot,
    a_spec,
    an_agent,
    full,
    queued,
)
from mesaform.autoscaler.demand import collect
from mesaform.autoscaler.disruption.rescheduling import Reservations, reserve
from mesaform.autoscaler.interruption import announcements
from mesaform.autoscaler.interruption.controller import absorb, last_call
from mesaform.autoscaler.interruption.notice import ParsedNotice
from mesaform.autoscaler.model.cluster_view import RunningTask
from mesaform.autoscaler.model.command import (
    Deactivate,
    Drain,
    Launch,
    MarkGone,
    Reactivate,
    Terminate,
)
from mesaform.autoscaler.model.notice import Notice, Risk
from mesaform.autoscaler.model.planner_state import BilledMachine, PlannerState
from mesaform.autoscaler.model.removal import Removal
from mesaform.autoscaler.model.shape import make
from mesaform.autoscaler.model.snapshot import Intent, Snapshot
from mesaform.autoscaler.model.supply_builder import build_supply
from mesaform.autoscaler.packing import place
from mesaform.autoscaler.packing.free_capacity import FreeCapacity
from mesaform.autoscaler.planner.planner import plan
from mesaform.autoscaler.reporting.decision_text import render_decision
from mesaform.autoscaler.reporting.reason_text import render, render_all
from mesaform.aws.overrides import Override
from mesaform.topology.names import Tag

ONE = make(1, 512)


def a_notice(kind="interruption", name="i-1", left_s=120.0, **fields) -> Notice:
    return replace(
        Notice(kind, name, NOW, NOW + left_s, "queue", "spot interruption (terminate)"), **fields
    )


def work(count=2, app="/web", framework="marathon", **fields) -> tuple[RunningTask, ...]:
    return tuple(
        RunningTask(f"{app}.{number}", app, framework, ONE, NOW - 100, **fields)
        for number in range(count)
    )


def with_notices(
    *notices: Notice,
    tasks: tuple[RunningTask, ...] | None = None,
    removal: Removal | None = None,
    roomy: bool = False,
    spec=None,
    agent: dict | None = None,
    machine: dict | None = None,
    **fields,
) -> Snapshot:
    """A cluster with a spot machine that holds `tasks` and has these notices.

    Its other agents are full unless it is `roomy`.
    """
    tasks = work() if tasks is None else tasks
    spot = a_machine("i-1", **{"capacity": "spot", **(machine or {})})
    others = [a_machine("i-t1", by="terraform"), a_machine("i-t2", by="terraform", zone=ZONES[1])]
    mine = an_agent(
        spot,
        **{
            "work": tasks,
            "tasks": len(tasks),
            "allocated": make(len(tasks), 512 * len(tasks)),
            **(agent or {}),
        },
    )
    agents = [mine, *(an_agent(other) if roomy else full(other) for other in others)]
    memory = fields.pop("state", PlannerState())
    memory = replace(
        memory,
        notices={notice.instance_id: notice for notice in notices},
        registered_at=dict.fromkeys(("i-1", "i-t1", "i-t2"), 1.0),
    )
    memory = replace(memory, leader_since=NOW - 1000, removals={"i-1": removal} if removal else {})
    return a_snapshot(
        spec or a_spec(),
        machines=[spot, *others],
        agents=agents,
        state=memory,
        app_constraints={"/web": ()},
        **fields,
    )


def deactivated(since_s=5.0, policy="interruption") -> Removal:
    return Removal("S-i-1", "deactivated", NOW - since_s, a_reason(), policy=policy)


AWAY = {"active": False, "deactivated": True}


def actions(snapshot: Snapshot, now: float = NOW) -> list:
    return [action for step in plan(snapshot, now).commands for action in step.actions]


def kinds(snapshot: Snapshot, now: float = NOW) -> list[str]:
    return [step.decision.kind for step in plan(snapshot, now).commands]


def bought(snapshot: Snapshot, now: float = NOW) -> list[Launch]:
    return [action for action in actions(snapshot, now) if isinstance(action, Launch)]


# what is remembered


def heard(*notices: Notice) -> list[ParsedNotice]:
    return [ParsedNotice(tuple(notices))]


def test_a_notice_of_a_machine_of_ours_is_remembered_and_counts_against_its_offering():
    memory = absorb(PlannerState(), heard(a_notice()), [a_machine("i-1", capacity="spot")], (), NOW)
    assert memory.notices == {"i-1": a_notice()}
    assert set(memory.risks) == {"m5.large/us-east-1a/spot"}


def test_notices_of_strangers_and_of_machines_that_ended_are_dropped():
    stranger = a_machine("i-1", role="builder")
    for machines in ([], [stranger], [a_machine("i-1", state="terminated")]):
        before = PlannerState()
        assert absorb(before, heard(a_notice()), machines, (), NOW) is before


def test_a_machine_that_ec2_does_not_list_yet_is_known_by_its_launch():
    intent = Intent(None, NOW, ("i-1",))  # type: ignore[arg-type]
    assert set(absorb(PlannerState(), heard(a_notice()), [], [intent], NOW).notices) == {"i-1"}


def test_hearing_it_again_changes_nothing():
    machines = [a_machine("i-1", capacity="spot")]
    once = absorb(PlannerState(), heard(a_notice()), machines, (), NOW)
    shown = replace(once, notices={"i-1": replace(once.notices["i-1"], is_reported=True)})
    assert absorb(shown, heard(a_notice(), a_notice()), machines, (), NOW + 5) is shown


def test_a_notice_that_comes_an_hour_late_is_dropped():
    before = PlannerState()
    assert absorb(before, heard(a_notice()), [a_machine("i-1")], (), NOW + 120 + 3601) is before


def test_only_scheduled_events_can_be_withdrawn():
    machines = [a_machine("i-1")]
    memory = absorb(PlannerState(), heard(a_notice("scheduled", left_s=90_000)), machines, (), NOW)
    assert absorb(memory, [ParsedNotice(withdrawn=("i-1",))], machines, (), NOW).notices == {}
    memory = absorb(PlannerState(), heard(a_notice()), machines, (), NOW)
    assert set(absorb(memory, [ParsedNotice(withdrawn=("i-1",))], machines, (), NOW).notices) == {
        "i-1"
    }


def test_a_notice_is_kept_until_the_machine_and_its_agent_are_gone():
    snapshot = with_notices(a_notice(is_reported=True))
    gone = replace(snapshot.machines[0], state="terminated")
    with_agent = replace(snapshot, machines=(gone, *snapshot.machines[1:]))
    assert set(plan(with_agent, NOW + 130).state.notices) == {"i-1"}
    assert snapshot.cluster is not None
    without = replace(
        with_agent, cluster=replace(snapshot.cluster, agents=snapshot.cluster.agents[1:])
    )
    assert plan(without, NOW + 130).state.notices == {}


# what is done


def test_the_first_pass_takes_the_machine_out_and_buys_what_its_tasks_need():
    outcome = plan(with_notices(a_notice()), NOW)
    assert [step.decision.kind for step in outcome.commands] == ["notice", "buy", "deactivate"]
    (launch,) = [
        action for step in outcome.commands for action in step.actions if isinstance(action, Launch)
    ]
    assert launch.request.count == 1
    assert outcome.verdicts[0].unit.source == "displaced"
    assert outcome.verdicts[0].buying == 2
    assert outcome.state.notices["i-1"].is_reported


def test_nothing_is_bought_where_its_tasks_fit():
    assert kinds(with_notices(a_notice(), roomy=True)) == ["notice", "deactivate"]


def test_a_task_counts_once_when_its_queue_shows_it():
    """Its agent no longer has it: the machine bought for it is on its way, and takes it."""
    gone = with_notices(
        a_notice(), tasks=(), removal=deactivated(), agent=AWAY, queue=[queued("/web", 2)]
    )
    outcome = plan(gone, NOW)
    assert sum(verdict.unit.count for verdict in outcome.verdicts) == 2
    half = with_notices(
        a_notice(), tasks=work(1), removal=deactivated(), agent=AWAY, queue=[queued("/web", 1)]
    )
    assert sum(verdict.unit.count for verdict in plan(half, NOW).verdicts) == 2


def test_a_decision_names_what_is_on_the_machine_and_what_follows():
    (decision,) = [
        step.decision
        for step in plan(with_notices(a_notice()), NOW).commands
        if step.decision.kind == "notice"
    ]
    assert render_decision(decision) == "i-1 (m5.large, spot) is interrupted"
    texts = [render(reason) for reason in decision.reasons]
    assert texts[0].endswith("the instance ends in 120 s")
    assert texts[1] == "reported by EventBridge"
    assert texts[2] == "2 tasks run on it"
    assert "bought at once" in texts[3]
    assert (decision.machines, decision.agents, decision.policy) == (
        ("i-1",),
        ("S-i-1",),
        "interruption",
    )


@pytest.mark.parametrize(
    ("left_s", "text"),
    [
        (58.0, "ends in 58 s"),
        (1800.0, "in 30 min"),
        (86400.0, "in 24 h"),
        (-3.0, "was due 3 s ago"),
    ],
)
def test_when_a_scheduled_event_comes_is_said_as_people_say_it(left_s, text):
    (decision,) = announcements.unreported(
        with_notices(replace(planned(left_s=left_s), is_reported=False)), 1.0, NOW
    )
    assert render_decision(decision) == "i-1 (m5.large, spot) has a scheduled event"
    assert render(decision.reasons[0]).startswith("instance retirement, ")
    assert text in render(decision.reasons[0])


def test_a_notice_is_recorded_once():
    assert "notice" not in kinds(with_notices(a_notice(is_reported=True)))


def test_it_drains_as_soon_as_its_tasks_have_a_place():
    (drain,) = actions(
        with_notices(a_notice(is_reported=True), removal=deactivated(), agent=AWAY, roomy=True)
    )
    assert drain == Drain("i-1", "S-i-1", 115.0, mark_gone=False)


def test_it_waits_for_what_was_bought_and_then_no_longer():
    snapshot = with_notices(a_notice(is_reported=True), removal=deactivated(), agent=AWAY)
    assert not [action for action in actions(snapshot, NOW + 104) if isinstance(action, Drain)]
    (drain,) = [action for action in actions(snapshot, NOW + 105) if isinstance(action, Drain)]
    assert drain.grace_s == 10.0


def test_the_last_call_leaves_the_grace_but_at_most_a_third_of_the_notice():
    assert last_call(a_notice(), 60.0) == NOW + 75
    assert last_call(a_notice(), 10.0) == NOW + 105
    assert last_call(a_notice(left_s=30), 60.0) == NOW + 15


def test_what_will_be_done_before_the_end_is_left_alone():
    batch = work(1, "/batch", ends_at=NOW + 60)
    snapshot = with_notices(
        a_notice(is_reported=True), tasks=batch, removal=deactivated(), agent=AWAY, roomy=True
    )
    assert actions(snapshot) == actions(snapshot, NOW + 110) == []
    assert not [
        verdict for verdict in plan(snapshot, NOW).verdicts if verdict.unit.source == "displaced"
    ]


def test_a_drain_waits_for_work_that_is_soon_done_but_not_for_ever():
    tasks = work(1, "/batch", ends_at=NOW + 60) + work(1)
    snapshot = with_notices(
        a_notice(is_reported=True), tasks=tasks, removal=deactivated(), agent=AWAY, roomy=True
    )
    assert actions(snapshot) == []
    assert [type(action) for action in actions(snapshot, NOW + 105)] == [Drain]
    later = with_notices(
        a_notice(is_reported=True),
        tasks=work(1, "/batch", ends_at=NOW + 109) + work(1),
        removal=deactivated(),
        agent=AWAY,
    )
    assert not [action for action in actions(later, NOW + 108) if isinstance(action, Drain)]
    assert [action for action in actions(later, NOW + 109.5) if isinstance(action, Drain)]


def test_work_that_ends_after_the_machine_moves_like_any_other():
    snapshot = with_notices(
        a_notice(is_reported=True),
        tasks=work(ends_at=NOW + 116),
        removal=deactivated(),
        agent=AWAY,
        roomy=True,
    )
    assert [type(action) for action in actions(snapshot)] == [Drain]


def test_nothing_is_drained_before_the_deactivation_was_looked_at_again():
    assert (
        actions(
            with_notices(
                a_notice(is_reported=True), removal=deactivated(0.5), agent=AWAY, roomy=True
            )
        )
        == []
    )


def test_a_deactivation_that_was_lost_is_asked_for_again():
    (again,) = actions(with_notices(a_notice(is_reported=True), removal=deactivated(), roomy=True))
    assert again == Deactivate("i-1", "S-i-1")


def test_a_drain_that_was_lost_is_asked_for_again():
    removal = replace(deactivated(20.0), phase="draining")
    (drain,) = actions(
        with_notices(a_notice(is_reported=True), removal=removal, agent=AWAY, roomy=True), NOW + 60
    )
    assert drain == Drain("i-1", "S-i-1", 55.0, mark_gone=False)
    assert (
        actions(
            with_notices(
                a_notice(is_reported=True),
                removal=removal,
                agent={**AWAY, "drain_state": "DRAINING"},
                roomy=True,
            )
        )
        == []
    )


def test_a_removal_under_way_is_taken_over():
    (step,) = plan(
        with_notices(
            a_notice(is_reported=True),
            removal=deactivated(policy="underused"),
            agent=AWAY,
            roomy=True,
        ),
        NOW,
    ).commands
    assert step.next_removal is not None
    assert (step.next_removal.policy, step.next_removal.phase) == ("interruption", "deactivated")


def test_demand_is_not_placed_on_a_machine_that_ends():
    """Neither on its room, nor by taking it back."""
    for removal, agent in ((None, {}), (deactivated(), AWAY)):
        snapshot = with_notices(
            a_notice(is_reported=True),
            tasks=(),
            removal=removal,
            agent=agent,
            queue=[queued("/web", 1)],
        )
        assert bought(snapshot)
        assert not [action for action in actions(snapshot) if isinstance(action, Reactivate)]


def test_a_machine_that_still_boots_is_not_counted_on():
    snapshot = with_notices(a_notice(is_reported=True), queue=[queued("/web", 1)])
    assert snapshot.cluster is not None
    young = replace(snapshot.machines[0], launched_at=NOW - 10)
    booting = replace(
        snapshot,
        machines=(young, *snapshot.machines[1:]),
        cluster=replace(snapshot.cluster, agents=snapshot.cluster.agents[1:]),
    )
    booting = replace(booting, state=replace(booting.state, registered_at={}))
    assert bought(booting)


def test_a_machine_that_outlives_its_announced_end_is_given_back():
    snapshot = with_notices(a_notice(is_reported=True), tasks=(), removal=deactivated(), agent=AWAY)
    assert actions(snapshot, NOW + 175) == []
    assert actions(snapshot, NOW + 181) == [MarkGone("i-1", "S-i-1"), Terminate("i-1")]


def test_a_machine_that_ended_as_announced_is_reported_to_the_engine():
    snapshot = with_notices(a_notice(is_reported=True), removal=deactivated(), agent=AWAY)
    ended = replace(
        snapshot,
        machines=(replace(snapshot.machines[0], state="terminated"), *snapshot.machines[1:]),
    )
    outcome = plan(ended, NOW + 121)
    (step,) = [step for step in outcome.commands if step.decision.kind == "instance_terminated"]
    assert step.actions == (MarkGone("i-1", "S-i-1"),)
    assert "2 tasks were still on it" in render_all(step.decision.reasons)


def test_a_machine_of_ours_that_was_stopped_is_given_back_and_one_of_terraforms_is_not():
    for tags, expected in (({}, [Terminate, MarkGone]), ({Tag.MANAGED_BY: "terraform"}, [])):
        snapshot = with_notices(
            a_notice(is_reported=True),
            tasks=(),
            removal=deactivated(),
            agent=AWAY,
            roomy=True,
            machine={"tags": tags},
        )
        stopped = replace(
            snapshot,
            machines=(replace(snapshot.machines[0], state="stopped"), *snapshot.machines[1:]),
        )
        assert [type(action) for action in actions(stopped, NOW + 121)] == expected


def test_a_machine_whose_end_was_called_off_works_again():
    snapshot = with_notices(tasks=(), removal=deactivated(), agent=AWAY)
    assert [action for action in actions(snapshot) if not isinstance(action, Launch)] == [
        Reactivate("i-1", "S-i-1")
    ]


def test_the_announced_end_of_a_master_is_recorded_and_nothing_is_done():
    master = a_machine("i-m", by="terraform", role="master", pool="")
    snapshot = with_notices(a_notice("scheduled", "i-m", 60), roomy=True)
    (step,) = plan(replace(snapshot, machines=(*snapshot.machines, master)), NOW).commands
    assert step.actions == ()
    assert "THE INSTANCE IS A MASTER" in render(step.decision.reasons[3])


def test_a_machine_of_terraforms_is_emptied_but_never_terminated():
    spec = a_spec()
    ours = {"tags": {Tag.MANAGED_BY: "terraform"}}
    first = with_notices(a_notice("scheduled", left_s=60), roomy=True, machine=ours, spec=spec)
    assert kinds(first) == ["notice", "deactivate"]
    assert "Terraform" in render(plan(first, NOW).commands[0].decision.reasons[3])
    drained = with_notices(
        a_notice("scheduled", left_s=60, is_reported=True),
        roomy=True,
        machine=ours,
        removal=deactivated(),
        agent=AWAY,
    )
    assert [type(action) for action in actions(drained)] == [Drain]
    empty = with_notices(
        a_notice("scheduled", left_s=60, is_reported=True),
        tasks=(),
        roomy=True,
        machine=ours,
        removal=deactivated(),
        agent=AWAY,
    )
    assert actions(empty, NOW + 200) == []


@pytest.mark.parametrize(
    "fields", [{"freeze_reason": "mesaform down"}, {"spec": a_spec(enabled=False)}]
)
def test_behind_a_freeze_a_notice_is_only_recorded(fields):
    outcome = plan(with_notices(a_notice(), **fields), NOW)
    assert [action for step in outcome.commands for action in step.actions] == []
    assert "notice" in [step.decision.kind for step in outcome.commands]


def test_a_pause_stops_the_buying_but_not_the_emptying():
    pause = Override("o1", "pause", "me", NOW - 10, NOW + 600)
    assert kinds(with_notices(a_notice(), overrides=(pause,))) == ["notice", "deactivate"]


def test_an_interruption_is_acted_on_while_removals_are_frozen():
    snapshot = with_notices(a_notice(), recovered=1)
    assert plan(snapshot, NOW).removals_blocked
    assert "deactivate" in kinds(snapshot)


def test_without_a_leading_master_nothing_is_done_yet():
    outcome = plan(replace(with_notices(a_notice()), cluster=None), NOW)
    assert [action for step in outcome.commands for action in step.actions] == []
    assert set(outcome.state.notices) == {"i-1"}


def test_offerings_lately_interrupted_are_not_bought_while_others_are_there():
    spec = a_spec(pools=[{"spot_share": 1.0, "types": ["m5.large"]}])
    machines = [a_machine("i-1", capacity="spot")]
    memory = absorb(PlannerState(), heard(a_notice()), machines, (), NOW)
    outcome = with_notices(a_notice(), spec=spec, state=replace(memory, leader_since=NOW - 100))
    outcome = replace(outcome, state=replace(outcome.state, risks=memory.risks))
    (launch,) = bought(outcome)
    assert {offering.zone for offering in launch.request.offerings} == {ZONES[1], ZONES[2]}


# planned ends and advice


def planned(left_s: float = 7200.0, **fields) -> Notice:
    return a_notice(
        "scheduled", left_s=left_s, is_reported=True, what="instance retirement", **fields
    )


def test_a_planned_end_takes_the_machine_out_ahead_and_buys_before_it_drains():
    assert kinds(with_notices(planned())) == ["deactivate"]
    waiting = with_notices(planned(), removal=deactivated(policy="retirement"), agent=AWAY)
    assert kinds(waiting) == ["buy"]
    ready = with_notices(
        planned(), removal=deactivated(policy="retirement"), agent=AWAY, roomy=True
    )
    assert actions(ready) == [Drain("i-1", "S-i-1", None, mark_gone=False)]


def test_a_planned_end_far_away_is_left_alone_until_its_time():
    far = planned(left_s=86400 + 60)
    assert kinds(with_notices(far)) == []
    assert kinds(with_notices(far), NOW + 61) == ["deactivate"]
    assert kinds(with_notices(far, spec=a_spec(interruption={"retire_ahead_s": 90000}))) == [
        "deactivate"
    ]


def test_a_planned_end_keeps_to_the_budget_of_disruptions_until_it_is_near():
    closed = a_spec(consolidation={"max_agents_percent": 0.0})
    assert kinds(with_notices(planned(), spec=closed)) == []
    assert kinds(with_notices(planned(), spec=closed), NOW + 7200 - 599)[-1] == "deactivate"


def test_a_planned_end_that_finds_no_replacement_gives_the_machine_back_to_its_work():
    stuck = with_notices(
        planned(),
        removal=deactivated(1201.0, policy="retirement"),
        agent=AWAY,
        spec=a_spec(pools=[{"max": 3}]),
    )
    outcome = plan(stuck, NOW)
    assert Reactivate("i-1", "S-i-1") in [
        action for step in outcome.commands for action in step.actions
    ]
    assert outcome.state.cooldown_until["i-1"] > NOW


def advice(**fields) -> Notice:
    return a_notice(
        "rebalance", ends_at=0.0, is_reported=True, what="rebalance recommendation", **fields
    )


REPLACE: dict[str, Any] = {"interruption": {"on_rebalance": "replace"}}


def test_advice_is_ignored_unless_the_spec_says_otherwise():
    assert kinds(with_notices(advice())) == []
    assert kinds(with_notices(advice(), spec=a_spec(**REPLACE))) == ["deactivate"]


@pytest.mark.parametrize(
    "fields",
    [
        {"machine": {"launched_at": NOW - 1000}},
        {"machine": {"tags": {Tag.MANAGED_BY: "terraform"}}},
        {"agent": {"attributes": {"mesaform/protect": "true"}}},
        {"tasks": work(protected=True)},
        {"tasks": work(framework="batch")},
        {"state": PlannerState(cooldown_until={"i-1": NOW + 10})},
    ],
)
def test_advice_is_not_followed_for_young_strange_or_protected_machines(fields):
    assert kinds(with_notices(advice(), spec=a_spec(**REPLACE), **fields)) == []


def test_advice_is_followed_replacement_first():
    settings = a_spec(**REPLACE)
    waiting = with_notices(
        advice(), removal=deactivated(policy="rebalance"), agent=AWAY, spec=settings
    )
    assert kinds(waiting) == ["buy"]
    ready = with_notices(
        advice(), removal=deactivated(policy="rebalance"), agent=AWAY, roomy=True, spec=settings
    )
    assert [type(action) for action in actions(ready)] == [Drain]


def test_advice_that_came_true_is_taken_over_by_the_interruption():
    snapshot = with_notices(
        a_notice(is_reported=True), removal=deactivated(policy="rebalance"), agent=AWAY, roomy=True
    )
    (step,) = plan(snapshot, NOW).commands
    assert step.next_removal is not None
    assert step.next_removal.policy == "interruption"


# rows of the ledger


def test_an_interrupted_machines_end_is_a_row_with_its_dollars():
    snapshot = with_notices(a_notice(is_reported=True))
    rented = BilledMachine(
        "m5.large", ZONES[0], "spot", 0.036, "default", "autoscaler", "agent", NOW - 3480
    )
    before = replace(snapshot.state, billed_machines={"i-1": rented})
    (row,) = announcements.ends(before, PlannerState(), snapshot, NOW + 120)
    assert (row["kind"], row["instance_id"], row["reported_by"], row["warning_s"]) == (
        "interruption",
        "i-1",
        "queue",
        120.0,
    )
    assert (row["usd"], row["tasks_lost"], row["lived_s"]) == (0.036, 2, 3600.0)
    assert announcements.ends(before, before, snapshot, NOW + 120) == []


def test_an_end_without_a_word_is_known_by_ec2s_reason():
    snapshot = with_notices()
    rented = BilledMachine(
        "m5.large", ZONES[0], "spot", 0.036, "default", "autoscaler", "agent", NOW - 3600
    )
    before = replace(snapshot.state, billed_machines={"i-1": rented})
    assert announcements.ends(before, PlannerState(), snapshot, NOW) == []
    reclaimed = replace(
        snapshot,
        machines=(
            replace(snapshot.machines[0], state="terminated", ended_by=announcements.ENDED_BY_EC2),
        ),
    )
    (row,) = announcements.ends(before, PlannerState(), reclaimed, NOW)
    assert row["warning_s"] == 0.0


# worlds


def test_room_is_not_kept_twice_for_what_is_demand_already():
    snapshot = with_notices(
        a_notice(is_reported=True), removal=deactivated(), agent=AWAY, roomy=True
    )
    supply = build_supply(snapshot, NOW)
    units = collect(snapshot, NOW)
    assert [unit.source for unit in units] == ["displaced"]
    room = FreeCapacity(supply, units, place(units, supply.nodes, supply.usage))
    assert reserve(snapshot, supply, room) == Reservations()


def test_a_planned_drain_of_a_terraform_machine_that_was_lost_is_asked_for_again():
    removal = replace(deactivated(30.0, "retirement"), phase="draining")
    ours = {"tags": {Tag.MANAGED_BY: "terraform"}}
    assert [
        type(a)
        for a in actions(
            with_notices(planned(), removal=removal, agent=AWAY, machine=ours, roomy=True)
        )
    ] == [Drain]


def test_a_planned_drain_of_a_terraform_machine_leaves_it_standing_empty():
    removal = replace(deactivated(30.0, "retirement"), phase="draining")
    ours = {"tags": {Tag.MANAGED_BY: "terraform"}}
    drained = {**AWAY, "drain_state": "DRAINED"}
    assert (
        actions(
            with_notices(
                planned(), tasks=(), removal=removal, agent=drained, machine=ours, roomy=True
            )
        )
        == []
    )
    bought_one = with_notices(planned(), tasks=(), removal=removal, agent=drained, roomy=True)
    assert [type(a) for a in actions(bought_one)] == [MarkGone, Terminate]


def test_what_its_timers_say_is_when_the_next_step_comes():
    """Nothing to do now; a moment after `next_pass_at` there is."""
    snapshot = with_notices(
        a_notice(is_reported=True),
        removal=deactivated(20.0),
        agent=AWAY,
        spec=a_spec(pools=[{"max": 3}]),
    )
    now, looked = NOW + 20, 0
    while not [action for action in actions(snapshot, now) if isinstance(action, Drain)]:
        outcome = plan(snapshot, now)
        assert outcome.next_pass_at is not None
        now, looked = max(outcome.next_pass_at, now + 0.001), looked + 1
        assert looked < 20
    assert now == pytest.approx(NOW + 105, abs=0.01)


def test_a_machine_on_its_way_out_for_want_of_work_is_not_given_work_again():
    """A task had landed on it meanwhile: it would be taken back, were it not to end."""
    snapshot = with_notices(
        a_notice(is_reported=True), removal=deactivated(policy=""), agent=AWAY, roomy=True
    )
    assert actions(snapshot) == [Deactivate("i-1", "S-i-1")]


def test_where_a_type_is_risky_in_every_zone_another_type_is_bought_as_spot():
    spec = a_spec(pools=[{"spot_share": 1.0, "types": ["m5.large", "m5.xlarge"]}])
    snapshot = with_notices(a_notice(is_reported=True), spec=spec)
    risks = {f"m5.large/{zone}/spot": Risk(1.0, NOW) for zone in ZONES}
    (launch,) = bought(replace(snapshot, state=replace(snapshot.state, risks=risks)))
    assert {
        (offering.instance_type, offering.capacity) for offering in launch.request.offerings
    } == {("m5.xlarge", "spot")}
