"""One pass at a time: verdicts, what is bought, what is given back, and when nothing is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.autoscaler_builders import (
    NOW,
    ZONES,
    a_framework,
    a_machine,
    a_reason,
    a_snapshot,
    a_spec,
    an_agent,
    full,
    queued,
)
from mesaform.autoscaler.model.command import (
    Deactivate,
    Drain,
    Launch,
    MarkGone,
    Reactivate,
    Terminate,
)
from mesaform.autoscaler.model.decision import DemandCount
from mesaform.autoscaler.model.experiment import Experiment, Guess
from mesaform.autoscaler.model.planner_state import Backoff, PlannerState
from mesaform.autoscaler.model.removal import Removal
from mesaform.autoscaler.model.shape import make
from mesaform.autoscaler.model.snapshot import Intent, Snapshot
from mesaform.autoscaler.planner.planner import Plan, plan
from mesaform.autoscaler.reporting.reason_text import render, render_all
from mesaform.autoscaler.reporting.verdict_text import render_refusal
from mesaform.aws.ports import LaunchRequest


def bought(outcome: Plan) -> dict[str, int]:
    """Machines ordered, by the first type of each request."""
    result: dict[str, int] = {}
    for step in outcome.commands:
        for action in step.actions:
            if isinstance(action, Launch):
                name = action.request.offerings[0].instance_type
                result[name] = result.get(name, 0) + action.request.count
    return result


def done(outcome: Plan) -> list[object]:
    return [
        action
        for step in outcome.commands
        for action in step.actions
        if not isinstance(action, Launch)
    ]


def only_verdict(outcome: Plan):
    assert len(outcome.verdicts) == 1
    return outcome.verdicts[0]


def an_idle_snapshot(idle_s: float = 400, **fields) -> Snapshot:
    """Terraform's two agents, busy, and one of the autoscaler's that has been idle for `idle_s`."""
    machines = [
        a_machine("i-t1", by="terraform"),
        a_machine("i-t2", by="terraform"),
        a_machine("i-1"),
    ]
    agents = [full(machines[0]), full(machines[1]), fields.pop("agent", an_agent(machines[2]))]
    memory = fields.pop(
        "state",
        PlannerState(
            leader_since=NOW - 9000,
            idle_since={"i-1": NOW - idle_s},
            registered_at=dict.fromkeys(["i-t1", "i-t2", "i-1"], NOW - 4000),
        ),
    )
    return a_snapshot(
        fields.pop("spec", None),
        machines=fields.pop("machines", machines),
        agents=fields.pop("agents", agents),
        state=memory,
        **fields,
    )


# demand and verdicts


def test_demand_that_fits_on_what_is_free_buys_nothing():
    outcome = plan(an_idle_snapshot(queue=[queued(count=2)]), NOW)
    assert (only_verdict(outcome).fits_now, bought(outcome)) == (2, {})


def test_demand_beyond_what_is_free_is_bought_for_and_no_more():
    outcome = plan(an_idle_snapshot(queue=[queued(count=5)]), NOW)
    verdict = only_verdict(outcome)
    assert (verdict.fits_now, verdict.buying, verdict.unmet) == (2, 3, 0)
    assert bought(outcome) == {"m5.large": 2}


def test_backing_off_after_failures_is_not_demand():
    assert plan(a_snapshot(queue=[queued(count=5, overdue=False)]), NOW).verdicts == ()


def test_memory_decides_the_type_when_memory_is_what_is_short():
    spec = a_spec(pools=[{"types": ["c5.xlarge", "r5.large"]}])
    assert bought(
        plan(a_snapshot(spec, queue=[queued(count=1, cpus=0.5, mem_mib=12000)]), NOW)
    ) == {"r5.large": 1}


def test_what_no_type_can_hold_is_said_with_the_nearest_and_what_it_lacks():
    outcome = plan(a_snapshot(queue=[queued(cpus=10)]), NOW)
    refusal = only_verdict(outcome).refusal
    assert refusal.kind == "impossible"
    assert "m5.2xlarge, has 8 cpus: 2 cpus short" in render_refusal(refusal)
    assert [step.decision.kind for step in outcome.commands] == ["unschedulable"]


def test_a_refusal_is_put_on_record_once():
    first = plan(a_snapshot(queue=[queued(cpus=10)]), NOW)
    again = plan(a_snapshot(queue=[queued(cpus=10)], state=first.state), NOW + 2)
    assert again.commands == ()


def test_a_role_that_no_offer_matches_is_not_cured_by_a_machine():
    outcome = plan(a_snapshot(queue=[queued(role="ads", rejections={"UnfulfilledRole": 3})]), NOW)
    assert bought(outcome) == {}
    assert "ads" in render_refusal(only_verdict(outcome).refusal)


def test_offers_that_were_too_small_are_cured_by_a_machine():
    outcome = plan(
        a_snapshot(queue=[queued(rejections={"UnfulfilledRole": 1, "InsufficientCpus": 3})]), NOW
    )
    assert bought(outcome) == {"m5.large": 1}


@pytest.mark.parametrize(
    ("constraint", "fits"),
    [
        (("pool", "CLUSTER", "default"), True),
        (("pool", "CLUSTER", "gpu"), False),
        (("zone", "LIKE", "us-east-1[ab]"), True),
        (("zone", "UNLIKE", "us-east-1.*"), False),
        (("disk", "IS", "ssd"), True),
        (("disk", "IS", "hdd"), False),
        (("nosuch", "UNLIKE", "x"), True),
        (("nosuch", "LIKE", "x"), False),
    ],
)
def test_constraints_on_what_a_pools_machines_will_be_decide_whether_one_is_bought(
    constraint, fits
):
    spec = a_spec(pools=[{"attributes": {"disk": "ssd"}}])
    outcome = plan(a_snapshot(spec, queue=[queued(constraints=[constraint])]), NOW)
    assert bool(bought(outcome)) is fits
    if not fits:
        assert only_verdict(outcome).refusal.kind == "constraint"


def test_a_type_that_the_work_forbids_is_no_alternative_however_cheap():
    """EC2 takes the cheapest offering; a forbidden type would be bought again and again."""
    spec = a_spec(pools=[{"types": ["m5.large", "c5.large"]}])
    outcome = plan(
        a_snapshot(spec, queue=[queued(constraints=[("instance_type", "LIKE", "m5.large")])]), NOW
    )
    requests = [
        action.request
        for step in outcome.commands
        for action in step.actions
        if isinstance(action, Launch)
    ]
    assert {offering.instance_type for request in requests for offering in request.offerings} == {
        "m5.large"
    }


def test_unique_hosts_get_a_machine_each():
    outcome = plan(a_snapshot(queue=[queued(count=4, constraints=[("hostname", "UNIQUE")])]), NOW)
    assert sum(bought(outcome).values()) == 4


def test_unique_hosts_that_have_an_instance_already_are_not_counted_as_room():
    machine = a_machine("i-t1", by="terraform")
    agent = an_agent(machine, allocated=make(1, 512), tasks=1, apps={"/web": 1})
    snapshot = a_snapshot(
        machines=[machine], agents=[agent], queue=[queued(constraints=[("hostname", "UNIQUE")])]
    )
    assert sum(bought(plan(snapshot, NOW)).values()) == 1


def test_one_a_zone_buys_in_the_zones_that_have_none():
    machine = a_machine("i-t1", by="terraform", zone=ZONES[0])
    agent = an_agent(machine, allocated=make(1, 512), tasks=1, apps={"/web": 1})
    outcome = plan(
        a_snapshot(
            machines=[machine],
            agents=[agent],
            queue=[queued(count=3, constraints=[("zone", "UNIQUE")])],
        ),
        NOW,
    )
    zones = {
        offering.zone
        for step in outcome.commands
        for action in step.actions
        for offering in action.request.offerings
    }
    assert zones == {ZONES[1], ZONES[2]}
    assert only_verdict(outcome).unmet == 1
    assert only_verdict(outcome).buying == 2


def test_headroom_is_demand_with_a_reason():
    outcome = plan(a_snapshot(a_spec(headroom_percent=50)), NOW)
    assert only_verdict(outcome).unit.source == "headroom"
    assert sum(bought(outcome).values()) == 1


# frameworks that are not ours


def starving_snapshot(memory: PlannerState | None = None, **fields) -> Snapshot:
    memory = memory or PlannerState(leader_since=NOW - 900, dry_since={"F-batch": NOW - 5})
    return a_snapshot(
        frameworks=[a_framework(**{"minimal": make(1.5, 2000), **fields})], state=memory
    )


def test_a_framework_that_declared_its_smallest_offer_and_finds_none_gets_a_machine():
    outcome = plan(starving_snapshot(), NOW)
    assert bought(outcome) == {"m5.large": 1}
    (launch,) = outcome.state.experiments["F-batch"].launches.values()
    assert (launch.machines, launch.pieces, launch.shape) == (1, 1, make(1.5, 2000))
    assert "one machine tests" in render_all(outcome.verdicts[0].unit.reasons)


@pytest.mark.parametrize("quiet", [{"suppressed": True}, {"active": False}])
def test_a_framework_that_wants_nothing_or_cannot_say_what_gets_none(quiet):
    assert bought(plan(starving_snapshot(**quiet), NOW)) == {}


def test_a_framework_just_gone_dry_is_watched_for_a_moment_first():
    outcome = plan(starving_snapshot(PlannerState(leader_since=NOW - 900)), NOW)
    assert bought(outcome) == {}
    assert outcome.state.dry_since == {"F-batch": NOW}


def test_a_framework_that_refused_a_machine_gets_no_more_for_a_while_unless_it_revives():
    refused = Experiment(
        refusals=1, refused_at=NOW - 9, until=NOW + 500, revived=1, bought=1, satisfied_revived=1
    )
    memory = PlannerState(
        leader_since=NOW - 900, dry_since={"F-batch": NOW - 5}, experiments={"F-batch": refused}
    )
    assert bought(plan(starving_snapshot(memory, asked=1), NOW)) == {}
    assert bought(plan(starving_snapshot(memory, asked=2), NOW)) == {"m5.large": 1}
    again = replace(memory, experiments={"F-batch": replace(refused, refusals=2)})
    assert bought(plan(starving_snapshot(again, asked=2), NOW)) == {}


def test_what_was_accepted_makes_the_next_purchase_larger():
    accepted = Experiment(bought=16, accepted=16, accepted_before=3, accepted_at=NOW - 60)
    memory = PlannerState(
        leader_since=NOW - 900, dry_since={"F-batch": NOW - 5}, experiments={"F-batch": accepted}
    )
    outcome = plan(starving_snapshot(memory, accepted=3), NOW)
    assert only_verdict(outcome).unit.count == 4


def test_purchases_on_inference_stay_within_their_limit_per_framework_and_hour():
    spec = a_spec(inference={"usd_per_hour": 0.15})
    spent = Experiment(guesses=(Guess(NOW - 3500, 0.096),))
    memory = PlannerState(
        leader_since=NOW - 900, dry_since={"F-batch": NOW - 5}, experiments={"F-batch": spent}
    )
    snapshot = replace(starving_snapshot(memory), spec=spec)
    outcome = plan(snapshot, NOW)
    assert bought(outcome) == {}
    refusal = only_verdict(outcome).refusal
    assert refusal is not None
    assert refusal.kind == "inference_limit"
    assert "autoscaler.inference.usd_per_hour 0.15" in render_all(refusal.reasons)
    assert bought(plan(snapshot, NOW + 101)) == {"m5.large": 1}, "an hour later"


# buying


def test_machines_on_their_way_are_counted():
    coming = a_machine("i-9", state="pending", launched_at=NOW - 10)
    machines = [a_machine("i-t1", by="terraform"), coming]
    outcome = plan(
        a_snapshot(machines=machines, agents=[full(machines[0])], queue=[queued(count=2)]), NOW
    )
    assert (only_verdict(outcome).arriving, bought(outcome)) == (2, {})


def test_room_on_an_agent_that_ec2_does_not_list_counts_and_the_agent_is_left_alone():
    agent = an_agent(a_machine("i-elsewhere"))
    outcome = plan(a_snapshot(machines=[], agents=[agent], queue=[queued(count=2)]), NOW)
    assert (only_verdict(outcome).fits_now, outcome.commands) == (2, ())


def test_a_journaled_launch_that_ec2_does_not_list_yet_is_counted():
    offering = a_snapshot().offerings["default"][0]
    intent = Intent(LaunchRequest("toy", "default", 1, (offering,), "ms-1"), NOW - 3, None)
    outcome = plan(a_snapshot(queue=[queued(count=2)], intents=(intent,)), NOW)
    assert (only_verdict(outcome).arriving, bought(outcome)) == (2, {})


def test_the_pools_max_is_kept_and_said():
    outcome = plan(a_snapshot(a_spec(pools=[{"max": 3}]), queue=[queued(count=40)]), NOW)
    assert sum(bought(outcome).values()) == 1
    verdict = only_verdict(outcome)
    assert (verdict.buying, verdict.unmet) == (8, 32)
    later = plan(a_snapshot(a_spec(pools=[{"max": 2}]), queue=[queued(count=40)]), NOW)
    assert "default (max 2)" in render_refusal(only_verdict(later).refusal)


def test_the_budget_is_kept_and_said():
    outcome = plan(a_snapshot(a_spec(usd=0.30), queue=[queued(count=40)]), NOW)
    assert outcome.after_usd_per_hour <= 0.30
    assert bought(outcome) == {"m5.large": 1}
    broke = plan(a_snapshot(a_spec(usd=0.20), queue=[queued(count=40)]), NOW)
    assert only_verdict(broke).refusal.kind == "cost_cap"
    assert bought(broke) == {}


def test_an_offering_that_had_no_capacity_is_left_alone_for_a_while():
    spec = a_spec(pools=[{"types": ["m5.large", "c5.xlarge"]}])
    keys = [f"m5.large/{zone}/on-demand" for zone in ZONES]
    memory = PlannerState(
        leader_since=NOW - 9, backoffs={key: Backoff(NOW + 30, 1) for key in keys}
    )
    assert bought(plan(a_snapshot(spec, queue=[queued()], state=memory), NOW)) == {"c5.xlarge": 1}
    assert bought(plan(a_snapshot(spec, queue=[queued()], state=memory), NOW + 31)) == {
        "m5.large": 1
    }


@pytest.mark.parametrize(("share", "spot"), [(0.0, 0), (0.5, 2), (1.0, 4)])
def test_the_spot_share_of_what_is_bought_is_kept(share, spot):
    spec = a_spec(pools=[{"types": ["m5.large"], "spot_share": share}])
    outcome = plan(a_snapshot(spec, queue=[queued(count=8)]), NOW)
    requests = [action.request for step in outcome.commands for action in step.actions]
    assert sum(request.count for request in requests) == 4
    assert (
        sum(request.count for request in requests if request.offerings[0].capacity == "spot")
        == spot
    )


def test_spot_machines_that_run_already_count_towards_the_share():
    spec = a_spec(pools=[{"count": 0, "types": ["m5.large"], "spot_share": 0.25}])
    machines = [a_machine(f"i-{number}", capacity="spot") for number in range(2)]
    agents = [full(machine) for machine in machines]
    planned = plan(
        a_snapshot(spec, machines=machines, agents=agents, queue=[queued(count=12)]), NOW
    )
    requests = [action.request for step in planned.commands for action in step.actions]
    assert sum(request.count for request in requests) == 6
    assert {request.offerings[0].capacity for request in requests} == {"on-demand"}


def test_a_launch_names_every_zone_so_that_one_without_capacity_costs_no_pass():
    outcome = plan(a_snapshot(queue=[queued()]), NOW)
    request = outcome.commands[0].actions[0].request
    assert {offering.zone for offering in request.offerings} == set(ZONES)
    assert request.offerings[0].zone == ZONES[2]  # where the pool has no machine yet


def test_a_pool_is_brought_up_to_its_min():
    outcome = plan(a_snapshot(a_spec(pools=[{"min": 4}])), NOW)
    assert bought(outcome) == {"m5.large": 2}
    assert "min" in render(outcome.commands[0].decision.reasons[0])


def test_terraforms_machines_that_are_not_there_yet_are_not_replaced():
    assert bought(plan(a_snapshot(machines=[], agents=[]), NOW)) == {}


def test_a_decision_to_buy_has_its_dollars_and_its_reason():
    decision = plan(a_snapshot(queue=[queued(count=2)]), NOW).commands[0].decision
    assert decision.usd_per_hour == pytest.approx(0.096)
    assert decision.after_usd - decision.before_usd == pytest.approx(0.096)
    assert decision.demand == (DemandCount("/web", 2),)
    assert render(decision.reasons[0]).startswith("/web")


def test_nothing_is_bought_without_a_leader_or_while_fenced_or_switched_off():
    assert bought(plan(a_snapshot(queue=[queued()], cluster=None), NOW)) == {}
    assert bought(plan(a_snapshot(queue=[queued()], freeze_reason="mesaform down"), NOW)) == {}
    assert bought(plan(a_snapshot(a_spec(enabled=False), queue=[queued()]), NOW)) == {}


def test_agents_expected_back_after_a_change_of_leader_are_waited_for():
    memory = PlannerState(leader_since=NOW - 5)
    assert bought(plan(a_snapshot(queue=[queued()], recovered=2, state=memory), NOW)) == {}
    assert bought(plan(a_snapshot(queue=[queued()], recovered=2, state=memory), NOW + 60)) == {
        "m5.large": 1
    }


# giving back


def test_an_idle_machine_goes_step_by_step():
    snapshot = an_idle_snapshot()
    first = plan(snapshot, NOW)
    assert done(first) == [Deactivate("i-1", "S-i-1")]
    asleep = an_agent(a_machine("i-1"), active=False, deactivated=True)
    memory = replace(
        first.state, removals={"i-1": Removal("S-i-1", "deactivated", NOW, a_reason())}
    )
    agents = [*snapshot.cluster.agents[:2], asleep]
    second = plan(
        replace(snapshot, cluster=replace(snapshot.cluster, agents=tuple(agents)), state=memory),
        NOW + 2,
    )
    assert done(second) == [Drain("i-1", "S-i-1", 10.0)]
    memory = replace(
        second.state, removals={"i-1": Removal("S-i-1", "draining", NOW + 2, a_reason())}
    )
    third = plan(
        replace(
            snapshot, cluster=replace(snapshot.cluster, agents=tuple(agents[:2])), state=memory
        ),
        NOW + 4,
    )
    assert done(third) == [Terminate("i-1")]
    assert third.commands[0].decision.usd_per_hour == pytest.approx(-0.096)


def test_a_machine_idle_for_less_stays():
    assert done(plan(an_idle_snapshot(idle_s=299), NOW)) == []


def test_a_machine_with_a_task_stays_whatever_its_timer_says():
    busy = an_agent(a_machine("i-1"), tasks=1, allocated=make(0.1, 32))
    outcome = plan(an_idle_snapshot(agent=busy), NOW)
    assert (done(outcome), outcome.state.idle_since) == ([], {})


def test_a_busy_machine_stays_even_when_idle_ones_go_at_once():
    busy = an_agent(a_machine("i-1"), tasks=1, allocated=make(0.1, 32))
    assert done(plan(an_idle_snapshot(agent=busy, spec=a_spec(idle_after_s=0)), NOW)) == []


def test_a_machine_that_waiting_demand_will_use_stays():
    outcome = plan(an_idle_snapshot(queue=[queued()]), NOW)
    assert (done(outcome), "i-1" in outcome.state.idle_since) == ([], False)


def test_a_machine_that_waiting_demand_will_use_stays_even_when_idle_ones_go_at_once():
    assert done(plan(an_idle_snapshot(queue=[queued()], spec=a_spec(idle_after_s=0)), NOW)) == []


def test_terraforms_machines_and_masters_are_never_removed():
    machines = [
        a_machine("i-t1", by="terraform"),
        a_machine("i-t2", by="terraform"),
        a_machine("i-m", by="autoscaler", role="master"),
    ]
    memory = PlannerState(
        leader_since=NOW - 9000, idle_since=dict.fromkeys(["i-t1", "i-t2", "i-m"], NOW - 9000)
    )
    outcome = plan(
        a_snapshot(
            machines=machines, agents=[an_agent(machine) for machine in machines], state=memory
        ),
        NOW,
    )
    assert done(outcome) == []


def test_the_pools_min_stays():
    assert done(plan(an_idle_snapshot(spec=a_spec(pools=[{"min": 3}])), NOW)) == []


@pytest.mark.parametrize(
    ("trouble", "why"),
    [
        ({"recovered": 1}, "expected back"),
        ({"queue": None}, "queue"),
        ({"cluster": None}, "no master"),
    ],
)
def test_nothing_is_removed_while_the_world_is_not_known(trouble, why):
    snapshot = an_idle_snapshot(
        **{key: value for key, value in trouble.items() if key == "recovered"}
    )
    snapshot = replace(
        snapshot, **{key: value for key, value in trouble.items() if key != "recovered"}
    )
    outcome = plan(snapshot, NOW)
    assert why in render(outcome.removals_blocked)
    assert done(outcome) == []


def test_nothing_is_removed_while_too_many_agents_are_missing():
    snapshot = an_idle_snapshot()
    outcome = plan(
        replace(snapshot, cluster=replace(snapshot.cluster, agents=snapshot.cluster.agents[1:])),
        NOW,
    )
    assert "1 of 3 agents are missing" in render(outcome.removals_blocked)
    assert done(outcome) == []


def a_leaving_snapshot(agent, phase="deactivated", ago=5.0, **fields) -> Snapshot:
    memory = PlannerState(
        leader_since=NOW - 9000,
        registered_at=dict.fromkeys(["i-t1", "i-t2", "i-1"], NOW - 4000),
        removals={"i-1": Removal("S-i-1", phase, NOW - ago, a_reason())},
    )
    return an_idle_snapshot(agent=agent, state=memory, **fields)


def asleep(**fields):
    return an_agent(a_machine("i-1"), active=False, deactivated=True, **fields)


def test_a_deactivated_machine_is_taken_back_before_another_is_bought():
    outcome = plan(a_leaving_snapshot(asleep(), queue=[queued(count=2)]), NOW)
    assert done(outcome) == [Reactivate("i-1", "S-i-1")]
    assert bought(outcome) == {}


def test_a_deactivated_machine_on_which_a_task_had_landed_is_taken_back():
    outcome = plan(a_leaving_snapshot(asleep(tasks=1, allocated=make(1, 32))), NOW)
    assert done(outcome) == [Reactivate("i-1", "S-i-1")]


def test_a_deactivation_that_was_lost_is_asked_for_again_and_nothing_is_drained():
    assert done(plan(a_leaving_snapshot(an_agent(a_machine("i-1"))), NOW)) == [
        Deactivate("i-1", "S-i-1")
    ]


def test_a_drain_that_was_lost_is_asked_for_again():
    assert done(plan(a_leaving_snapshot(asleep(), phase="draining"), NOW)) == [
        Drain("i-1", "S-i-1", 10.0)
    ]


def test_an_operators_drain_that_was_withdrawn_before_it_began_is_undone():
    snapshot = a_leaving_snapshot(asleep(tasks=1, allocated=make(1, 32)))
    removal = replace(snapshot.state.removals["i-1"], policy="operator")
    outcome = plan(replace(snapshot, state=replace(snapshot.state, removals={"i-1": removal})), NOW)
    assert done(outcome) == [Reactivate("i-1", "S-i-1")]


def test_an_empty_agent_that_does_not_drain_in_time_is_marked_gone_and_terminated():
    outcome = plan(
        a_leaving_snapshot(asleep(drain_state="DRAINING"), phase="draining", ago=80), NOW
    )
    assert done(outcome) == [MarkGone("i-1", "S-i-1"), Terminate("i-1")]


def test_an_empty_agent_whose_drain_is_refused_is_marked_gone_and_terminated_in_time():
    early, late = a_leaving_snapshot(asleep(), ago=60), a_leaving_snapshot(asleep(), ago=80)
    assert done(plan(early, NOW)) == [Drain("i-1", "S-i-1", 10.0)]
    assert done(plan(late, NOW)) == [MarkGone("i-1", "S-i-1"), Terminate("i-1")]


def test_a_deactivated_agent_with_a_task_is_not_terminated_by_any_deadline():
    for policy in ("operator", "underused"):
        snapshot = a_leaving_snapshot(asleep(tasks=1, allocated=make(1, 32)), ago=8000)
        removal = replace(snapshot.state.removals["i-1"], policy=policy)
        state = replace(snapshot.state, removals={"i-1": removal})
        actions = done(plan(replace(snapshot, state=state), NOW))
        assert not [step for step in actions if isinstance(step, MarkGone | Terminate)]


def test_a_draining_agent_with_a_task_is_not_terminated_by_any_deadline():
    agent = asleep(drain_state="DRAINING", tasks=1, allocated=make(1, 32))
    assert done(plan(a_leaving_snapshot(agent, phase="draining", ago=8000), NOW)) == []


def test_a_termination_that_did_not_take_is_asked_for_again():
    assert done(plan(a_leaving_snapshot(asleep(), phase="terminating", ago=20), NOW)) == [
        Terminate("i-1")
    ]


def test_a_machine_that_never_registered_is_given_up_after_the_time_for_it():
    stuck = a_machine("i-9", launched_at=NOW - 601)
    machines = [a_machine("i-t1", by="terraform"), stuck]
    memory = PlannerState(leader_since=NOW - 9000)
    outcome = plan(a_snapshot(machines=machines, agents=[full(machines[0])], state=memory), NOW)
    assert done(outcome) == [Terminate("i-9")]
    assert outcome.commands[0].decision.kind == "give_up"
    assert (
        done(plan(a_snapshot(machines=machines, agents=[full(machines[0])], state=memory), NOW - 5))
        == []
    )


def test_a_history_nobody_thought_of_leaves_the_machine_alone():
    snapshot = an_idle_snapshot()
    memory = replace(snapshot.state, history={"i-1": ("gone",)})
    outcome = plan(replace(snapshot, state=memory), NOW)
    assert outcome.quarantined == {"i-1": "gone > idle"}
    assert done(outcome) == []


def test_the_same_snapshot_gives_the_same_plan():
    snapshot = an_idle_snapshot(queue=[queued("/a", 7), queued("/b", 3, cpus=2)])
    assert plan(snapshot, NOW) == plan(snapshot, NOW)
