"""Verdicts of `plan` on demand: where it fits, what it waits for, and why it gets nothing."""

from __future__ import annotations

from dataclasses import replace

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
from mesaform.autoscaler.model.cluster_view import ClusterView, Quota
from mesaform.autoscaler.model.command import Launch
from mesaform.autoscaler.model.planner_state import Backoff, PlannerState
from mesaform.autoscaler.model.removal import Removal
from mesaform.autoscaler.model.snapshot import Intent, Snapshot
from mesaform.autoscaler.planner import launch_backoff
from mesaform.autoscaler.planner.planner import plan
from mesaform.autoscaler.planner.priorities import RANKS
from mesaform.autoscaler.planner.verdicts import Verdict
from mesaform.autoscaler.reporting.api_views import describe
from mesaform.autoscaler.reporting.decision_log import lines_of
from mesaform.autoscaler.reporting.verdict_text import render_refusal, render_verdict
from mesaform.aws.overrides import Override
from mesaform.aws.ports import LaunchRequest

HOST_PORT_31500 = ("@port", "FREE", "31500")


def requests_of(snapshot: Snapshot) -> list[LaunchRequest]:
    """What a pass launches."""
    actions = (action for command in plan(snapshot, NOW).commands for action in command.actions)
    return [action.request for action in actions if isinstance(action, Launch)]


def judged(*queue, spec=None, **fields) -> Verdict:
    (verdict,) = plan(a_snapshot(spec, queue=list(queue), **fields), NOW).verdicts
    return verdict


def test_a_verdict_names_the_machines_that_work_fits_on():
    machine = a_machine("i-1")
    verdict = judged(queued(count=2), machines=[machine], agents=[an_agent(machine)])
    assert verdict.fits_on == ("i-1 (m5.large)",)
    assert render_verdict(verdict) == "2 fit now on i-1 (m5.large)"


def test_a_verdict_names_the_machines_that_work_waits_for():
    machines = [
        a_machine("i-t1", by="terraform"),
        a_machine("i-9", state="pending", launched_at=NOW - 10),
    ]
    verdict = judged(queued(count=3), machines=machines, agents=[full(machines[0])])
    assert verdict.waits_for == ("i-9 (m5.large)",)
    assert (
        render_verdict(verdict) == "2 wait for i-9 (m5.large), 1 need machines to buy: 1 x m5.large"
    )


def test_a_verdict_names_a_launch_that_ec2_does_not_list_yet():
    offering = a_snapshot().offerings["default"][0]
    intent = Intent(LaunchRequest("toy", "default", 1, (offering,), "ms-1"), NOW - 3, None)
    assert judged(queued(), intents=(intent,)).waits_for == ("ms-1/0 (m5.large)",)


def test_a_machine_taken_back_is_where_work_fits():
    machine = a_machine("i-1")
    agent = an_agent(machine, active=False, deactivated=True)
    memory = PlannerState(
        leader_since=NOW - 9,
        registered_at={"i-1": NOW - 99},
        removals={"i-1": Removal("S-i-1", "deactivated", NOW - 5, a_reason())},
    )
    assert judged(queued(), machines=[machine], agents=[agent], state=memory).fits_on == (
        "i-1 (m5.large)",
    )


def test_many_machines_are_counted_and_not_all_named():
    machines = [a_machine(f"i-{n}") for n in range(5)]
    verdict = judged(
        queued(count=10), machines=machines, agents=[an_agent(machine) for machine in machines]
    )
    assert len(verdict.fits_on) == 5
    assert render_verdict(verdict).endswith("and 2 more")


def test_an_impossible_verdict_names_the_nearest_type_and_the_shortfall():
    spec = a_spec(pools=[{"types": ["m5.large", "r5.xlarge", "m5.2xlarge"]}])
    refusal = judged(queued(cpus=1, mem_mib=200 * 1024), spec=spec).refusal
    assert refusal.kind == "impossible"
    assert (
        render_refusal(refusal)
        == "needs 200 GiB memory; the nearest allowed type, m5.2xlarge, has 30.4 GiB memory:"
        " 169.6 GiB memory short"
    )


def test_an_impossible_verdict_names_a_larger_type_that_constraints_exclude():
    spec = a_spec(pools=[{"types": ["m5.large"]}, {"name": "large", "types": ["m5.2xlarge"]}])
    refusal = judged(queued(cpus=6, constraints=[("pool", "IS", "default")]), spec=spec).refusal
    assert refusal.kind == "impossible"
    assert "the nearest allowed type, m5.large, has 2 cpus: 4 cpus short" in render_refusal(refusal)
    assert (
        "m5.2xlarge of pool large is large enough, but its constraints (pool IS default) exclude it"
        in render_refusal(refusal)
    )


@pytest.mark.parametrize(
    ("constraint", "why"),
    [
        (
            ("zone", "IS", "us-west-9z"),
            "zone IS us-west-9z (the pools have us-east-1a, us-east-1b, us-east-1c)",
        ),
        (("rack", "LIKE", "r.*"), "rack LIKE r.* (no pool has the attribute rack)"),
        (
            ("hostname", "LIKE", "db-.*"),
            "hostname LIKE db-.* (the name of a new machine is not known before it exists)",
        ),
    ],
)
def test_a_constraint_that_no_machine_would_satisfy_is_named_with_what_there_is(constraint, why):
    refusal = judged(queued(constraints=[("pool", "IS", "default"), constraint])).refusal
    assert refusal.kind == "constraint"
    assert render_refusal(refusal) == f"no pool satisfies {why}"


def test_constraints_that_no_machine_satisfies_together_are_a_conflict():
    spec = a_spec(pools=[{"attributes": {"disk": "ssd"}}, {"name": "other"}])
    refusal = judged(
        queued(constraints=[("disk", "IS", "ssd"), ("pool", "IS", "other")]), spec=spec
    ).refusal
    assert (
        "disk IS ssd; pool IS other (each can be satisfied, but not all by one machine)"
        in render_refusal(refusal)
    )


def test_instances_that_must_share_a_machine_too_small_for_all_can_never_fit():
    refusal = judged(queued(count=9, constraints=[("hostname", "CLUSTER")])).refusal
    assert refusal.kind == "impossible"
    assert render_refusal(refusal).startswith("needs 9 cpus; the nearest allowed type, m5.2xlarge")
    assert "its 9 instances have to be on one agent (hostname CLUSTER)" in render_refusal(refusal)


def test_a_numeric_attribute_is_compared_as_the_agents_register_it():
    spec = a_spec(pools=[{"attributes": {"rack": "1234567", "version": "1.10"}}])
    fitting = (("rack", "IS", "1234567.0"), ("version", "IS", "1.1"))
    assert judged(queued(constraints=fitting), spec=spec).buying == 1
    other = judged(queued(constraints=(("version", "LIKE", "1.10"),)), spec=spec)
    assert "the pools have 1.1" in render_refusal(other.refusal)


def test_a_fixed_host_port_is_taken_once_on_an_agent_and_a_machine_is_bought_for_the_next():
    machine = a_machine("i-1")
    agent = an_agent(machine, ports=((31000, 32000),))
    verdict = judged(
        queued(count=2, constraints=(HOST_PORT_31500,)), machines=[machine], agents=[agent]
    )
    assert (verdict.fits_now, verdict.buying) == (1, 1)
    taken = replace(agent, ports=((31000, 31499), (31501, 32000)))
    verdict = judged(queued(constraints=(HOST_PORT_31500,)), machines=[machine], agents=[taken])
    assert (verdict.fits_now, verdict.buying) == (0, 1)


def test_apps_with_the_same_host_port_get_machines_of_their_own():
    queue = [queued(f"/{name}", constraints=(HOST_PORT_31500,)) for name in "abc"]
    snapshot = a_snapshot(queue=queue)
    assert sum(request.count for request in requests_of(snapshot)) == 3


def test_a_host_port_that_no_agent_offers_is_never_bought_for():
    verdict = judged(queued(constraints=(("@port", "FREE", "8080"),)))
    assert (verdict.buying, verdict.unmet) == (0, 1)
    assert render_refusal(verdict.refusal) == (
        "no pool's agents offer host port 8080 (they offer 31000-32000): "
        "use a port of these, or 0 for any"
    )


def test_the_zone_of_a_fault_domain_chooses_the_machine_that_is_bought():
    constraints = (("@zone", "IS", ZONES[2]), ("@region", "IS", "us-east-1"))
    (request,) = requests_of(a_snapshot(queue=[queued(constraints=constraints)]))
    assert {offering.zone for offering in request.offerings} == {ZONES[2]}
    elsewhere = judged(queued(constraints=(("@region", "IS", "eu-west-1"),)))
    assert "the pools have us-east-1" in render_refusal(elsewhere.refusal)


def test_work_that_takes_reserved_resources_only_is_no_reason_to_buy():
    verdict = judged(replace(queued(), accepts_unreserved=False))
    assert (verdict.buying, verdict.unmet) == (0, 1)
    assert "its role" in render_refusal(verdict.refusal)


def test_a_full_agent_of_a_cluster_constraint_is_named():
    machine = a_machine("i-1", private_address="127.42.0.9")
    total = an_agent(machine).total
    agent = an_agent(machine, allocated=(total[0], total[1], 0, 0, 0), tasks=1, apps={"/web": 1})
    refusal = judged(
        queued(constraints=[("hostname", "CLUSTER")]), machines=[machine], agents=[agent]
    ).refusal
    assert refusal.kind == "constraint"
    assert "belong on 127.42.0.9, which has no capacity left" in render_refusal(refusal)


@pytest.mark.parametrize(
    ("rejections", "kind"),
    [({"UnfulfilledRole": 4}, "role"), ({"NoCorrespondingReservationFound": 2}, "reservation")],
)
def test_what_a_machine_would_not_help_has_its_kind(rejections, kind):
    assert judged(queued(rejections=rejections)).refusal.kind == kind


def test_a_quota_splits_demand_into_a_bought_and_a_refused_part():
    snapshot = a_snapshot(queue=[queued(count=4, role="ads")])
    view = replace(snapshot.cluster, quotas=(Quota("ads", (1000, None, None, None)),))
    bought, stopped = plan(replace(snapshot, cluster=view), NOW).verdicts
    assert (bought.buying, stopped.unmet, stopped.refusal.kind) == (1, 3, "quota")
    assert "of its quota" in render_verdict(stopped)


def test_a_capacity_backoff_has_the_time_of_the_next_request():
    keys = [offering.key for offering in a_snapshot().offerings["default"]]
    memory = PlannerState(
        leader_since=NOW - 9, backoffs={key: Backoff(NOW + 30, 1) for key in keys}
    )
    refusal = judged(queued(), state=memory).refusal
    assert refusal.kind == "no_capacity"
    assert "next request in 30 s" in render_refusal(refusal)


def test_a_launch_that_the_cloud_refused_is_the_reason_with_what_the_cloud_said():
    spec = a_spec()
    request = LaunchRequest("toy", "default", 1, a_snapshot(spec).offerings["default"], "t")
    cause = "launch template mesaform/toy/default is missing (create it again: mesaform up)"
    state = PlannerState(leader_since=NOW - 9)
    refused = launch_backoff.state_after_refusal(state, request, cause, NOW)
    refusal = judged(queued("/web", 1), spec=spec, state=refused).refusal
    assert refusal is not None
    assert render_refusal(refusal) == f"the last launch failed: {cause}; next request in 60 s"


@pytest.mark.parametrize(
    ("constraint", "count"),
    [(("zone", "GROUP_BY", "5"), 5), (("zone", "UNIQUE"), 4), (("@zone", "MAX_PER", "1"), 7)],
)
def test_pieces_that_no_further_zone_would_take_are_refused_for_that_in_the_first_pass(
    constraint, count
):
    verdict = judged(queued("/web", count, 1.5, constraints=[constraint]))
    assert verdict.buying == 3
    assert verdict.refusal is not None
    assert verdict.refusal.kind == "constraint"
    assert "every location that its constraints allow" in render_refusal(verdict.refusal)


def test_while_nothing_is_bought_at_all_that_is_the_reason_unless_nothing_would_help_either():
    assert (
        render_refusal(judged(queued(), freeze_reason="mesaform down").refusal) == "mesaform down"
    )
    assert judged(queued(cpus=99), freeze_reason="mesaform down").refusal.kind == "impossible"


def test_an_unknown_catalogue_is_the_reason_while_it_lasts():
    assert judged(queued(), offerings={}).refusal.kind == "no_offering"


# the packed purchase


def test_a_plan_has_the_price_the_lower_bound_and_the_method_of_its_packing():
    planned = plan(
        a_snapshot(queue=[queued(count=5), queued("/big", 3, cpus=3, mem_mib=9000)]), NOW
    )
    assert planned.packed is not None
    assert planned.packed.bound_usd_per_hour <= planned.packed.usd_per_hour
    assert planned.packed.usd_per_hour == pytest.approx(
        sum(step.decision.usd_per_hour for step in planned.commands)
    )
    assert planned.packed.machines == sum(step.decision.count for step in planned.commands)
    assert planned.packed.gap_percent == pytest.approx(
        (planned.packed.usd_per_hour / planned.packed.bound_usd_per_hour - 1) * 100, abs=0.01
    )
    for step in planned.commands:
        assert (step.decision.packed_usd, step.decision.bound_usd) == (
            planned.packed.usd_per_hour,
            planned.packed.bound_usd_per_hour,
        )
        assert (step.decision.gap_percent, step.decision.method) == (
            planned.packed.gap_percent,
            planned.packed.method,
        )
    assert describe(planned)["packed"]["method"] == planned.packed.method


def test_the_lower_bound_is_in_the_decision_log():
    planned = plan(a_snapshot(queue=[queued(count=5)]), NOW)
    (line,) = lines_of([step.decision.record() for step in planned.commands])
    assert line.reasons[-1].startswith(
        f"packed at ${planned.packed.usd_per_hour:.4f} an hour, at least $"
    )
    assert planned.packed.method in line.reasons[-1]


def test_a_plan_that_packs_nothing_has_no_packing():
    planned = plan(a_snapshot(a_spec(pools=[{"min": 4}])), NOW)
    assert planned.packed is None
    assert {step.decision.method for step in planned.commands} == {""}
    assert plan(a_snapshot(queue=[queued()], freeze_reason="x"), NOW).packed is None


# the order of degrading


def a_hint(count: int, cpus: float = 1.0) -> Override:
    return Override("h1", "hint", "ann", NOW - 9, NOW + 999, count=count, cpus=cpus, mem_mib=512)


def short_of_money(usd: float, **fields) -> Snapshot:
    """Two full m5.large of Terraform's at $0.192; waiting work, a hint and headroom want more."""
    spec = a_spec(
        pools=[{"types": ["m5.large"]}],
        usd=usd,
        headroom_slots=[{"count": 2, "cpus": 2, "mem_mib": 6000}],
    )
    return a_snapshot(spec, queue=[queued(count=4)], overrides=(a_hint(6),), **fields)


def served(snapshot: Snapshot) -> dict[str, int]:
    return {
        verdict.unit.source: verdict.fits_now + verdict.buying
        for verdict in plan(snapshot, NOW).verdicts
    }


def test_with_money_for_all_everything_is_bought_for():
    assert served(short_of_money(9.0)) == {"services": 4, "hint": 6, "headroom": 2}


@pytest.mark.parametrize(
    ("machines", "expected"),
    [
        (6, {"services": 4, "hint": 6, "headroom": 1}),
        (5, {"services": 4, "hint": 6, "headroom": 0}),
        (3, {"services": 4, "hint": 2, "headroom": 0}),
        (2, {"services": 4, "hint": 0, "headroom": 0}),
        (1, {"services": 2, "hint": 0, "headroom": 0}),
    ],
)
def test_under_the_dollar_cap_headroom_goes_without_first_then_hints_and_work_that_waits_last(
    machines, expected
):
    assert served(short_of_money(0.192 + machines * 0.096 + 0.001)) == expected


def test_the_same_order_holds_where_a_pools_max_binds():
    snapshot = short_of_money(9.0)
    spec = a_spec(
        pools=[{"types": ["m5.large"], "max": 4}],
        headroom_slots=[{"count": 2, "cpus": 2, "mem_mib": 6000}],
    )
    assert served(replace(snapshot, spec=spec)) == {"services": 4, "hint": 0, "headroom": 0}


def test_what_was_bought_for_the_first_has_its_gaps_filled_by_the_next():
    spec = a_spec(pools=[{"types": ["m5.large"]}], usd=0.192 + 0.096 + 0.001)
    snapshot = a_snapshot(
        spec, queue=[queued(count=1, cpus=1.5)], overrides=(a_hint(3, cpus=0.25),)
    )
    planned = plan(snapshot, NOW)
    assert [(verdict.unit.source, verdict.buying) for verdict in planned.verdicts] == [
        ("services", 1),
        ("hint", 2),
    ]
    assert sum(step.decision.count for step in planned.commands if step.decision.kind == "buy") == 1
    assert planned.after_usd_per_hour <= spec.cost.max_usd_per_hour


def test_every_source_of_demand_has_a_rank_and_queues_come_first():
    assert RANKS["services"] == min(RANKS.values())
    assert max(RANKS, key=RANKS.__getitem__) == "headroom"


def test_a_launch_for_what_is_cut_down_stays_under_the_cap_whatever_ec2_takes():
    planned = plan(short_of_money(0.192 + 2 * 0.096 + 0.001), NOW)
    requests = [
        action.request
        for step in planned.commands
        for action in step.actions
        if isinstance(action, Launch)
    ]
    assert (
        sum(max(o.usd_per_hour for o in request.offerings) * request.count for request in requests)
        <= 2 * 0.096 + 0.001
    )
    assert all(offering.zone in ZONES for request in requests for offering in request.offerings)


def test_without_a_leader_there_are_no_verdicts():
    assert plan(a_snapshot(queue=[queued()], cluster=None), NOW).verdicts == ()
    assert ClusterView().quotas == ()


def test_a_missing_launch_template_is_named_on_the_first_pass_and_nothing_is_ordered():
    snapshot = a_snapshot(queue=[queued(count=2)], templates_read=True)
    planned = plan(snapshot, NOW)
    (verdict,) = planned.verdicts
    assert verdict.buying == 0
    assert "launch template mesaform/toy/default is missing" in render_verdict(verdict)
    assert not [command for command in planned.commands if command.decision.kind == "buy"]
    unread = plan(replace(snapshot, templates_read=False), NOW)
    assert unread.verdicts[0].buying == 2, "what was not read is not missing"
