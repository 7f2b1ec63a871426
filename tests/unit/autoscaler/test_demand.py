"""Demand of queues and frameworks: what counts, what does not, and what no machine can serve."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest

from harness.autoscaler_builders import (
    NOW,
    a_framework,
    a_machine,
    a_snapshot,
    an_agent,
    full,
    queued,
)
from mesaform.autoscaler import demand
from mesaform.autoscaler.demand import rates
from mesaform.autoscaler.model.cluster_view import ClusterView, Framework, Quota
from mesaform.autoscaler.model.decision import DemandCount
from mesaform.autoscaler.model.demand_item import DemandItem
from mesaform.autoscaler.model.experiment import Experiment, Guess, NewAgent, TrialLaunch
from mesaform.autoscaler.model.planner_state import Finding, Mark, PlannerState
from mesaform.autoscaler.model.shape import make, text
from mesaform.autoscaler.model.snapshot import Snapshot
from mesaform.autoscaler.observation import mesos_parsers
from mesaform.autoscaler.observation.mesos_agent_parser import AgentReader, Agents
from mesaform.autoscaler.observation.mesos_framework_parser import PROBE, offer_constraints, quotas
from mesaform.autoscaler.planner.planner import plan
from mesaform.autoscaler.reporting.reason_text import render, render_all
from mesaform.cli.plan import remembered
from mesaform.placement.constraints import Constraint
from mesaform.services.model import UpgradeStrategy
from mesaform.services.scaling import plan as next_step
from tests.unit.services.test_scaling import an_app, instance

DRY = PlannerState(leader_since=NOW - 900, dry_since={"F-batch": NOW - 10})


def units(snapshot: Snapshot) -> list[DemandItem]:
    return demand.collect(snapshot, NOW)


def the_unit(snapshot: Snapshot) -> DemandItem:
    (unit,) = units(snapshot)
    return unit


# queues


def test_what_waits_is_demand_with_its_shape_count_constraints_and_reason():
    entry = queued(
        "/web",
        3,
        cpus=2,
        constraints=[("zone", "UNIQUE")],
        since=NOW - 40,
        rejections={"InsufficientCpus": 2},
    )
    unit = the_unit(a_snapshot(queue=[entry]))
    assert (unit.source, unit.name, unit.shape, unit.count) == ("services", "/web", make(2, 512), 3)
    assert unit.constraints == (Constraint("zone", "UNIQUE"),)
    assert (
        render_all(unit.reasons)
        == "/web: 3 instances waiting for 40 s; offers refused: InsufficientCpus 2"
    )


@pytest.mark.parametrize("entry", [queued(overdue=False), queued(count=0)])
def test_backing_off_after_failures_is_no_demand(entry):
    assert units(a_snapshot(queue=[entry])) == []


@pytest.mark.parametrize(
    ("health", "over", "asked"), [(1.0, 0.2, 2), (0.5, 0.0, 0), (1.0, 1.0, 10)]
)
def test_a_rolling_deployment_asks_for_what_it_starts_beside_the_old_and_no_more(
    health, over, asked
):
    app = an_app(
        10,
        upgrade_strategy=UpgradeStrategy(
            minimum_health_capacity=health, maximum_over_capacity=over
        ),
    )
    step = next_step(app, [instance(f"old{number}", version="v1") for number in range(10)])
    result = units(a_snapshot(queue=[queued("/web", step.launches)]))
    assert sum(unit.count for unit in result) == asked


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        ("UnfulfilledRole", "role"),
        ("NoCorrespondingReservationFound", "reservation"),
        ("AgentMaintenance", "maintenance"),
    ],
)
def test_work_that_every_offer_was_refused_for_by_role_or_reservation_is_blocked(reason, kind):
    snapshot = a_snapshot(queue=[queued(rejections={reason: 2}, role="ads")])
    assert the_unit(snapshot).blocked_kind == kind
    planned = plan(snapshot, NOW)
    assert not [step for step in planned.commands if step.decision.kind == "buy"]
    mixed = a_snapshot(queue=[queued(rejections={reason: 2, "InsufficientCpus": 1})])
    assert the_unit(mixed).blocked is None, "an offer came as far as its size"


# quota


def limited(cpus: float, used: float = 0, role: str = "ads", **fields) -> Snapshot:
    quota = Quota(role, (round(cpus * 1000), None, None, None), make(used, 9999))
    base = a_snapshot(**fields)
    assert base.cluster is not None
    return replace(base, cluster=replace(base.cluster, quotas=(quota,)))


def test_what_a_quota_forbids_is_blocked_and_nothing_is_bought_for_it():
    snapshot = limited(4, used=2, queue=[queued("/web", 5, role="ads")])
    free, stopped = units(snapshot)
    assert (free.count, free.blocked, stopped.count, stopped.blocked_kind) == (2, None, 3, "quota")
    assert "role ads has 2 of 4 cpus of its quota" in render(stopped.blocked)
    assert free.key != stopped.key
    planned = plan(snapshot, NOW)
    (bought,) = [step.decision for step in planned.commands if step.decision.kind == "buy"]
    assert bought.demand == (DemandCount("/web", 2),)


def test_apps_of_one_role_share_what_its_quota_leaves():
    result = units(
        limited(
            3, queue=[queued("/a", 2, role="ads"), queued("/b", 2, role="ads"), queued("/c", 2)]
        )
    )
    assert [(unit.name, unit.count, unit.blocked_kind) for unit in result] == [
        ("/a", 2, ""), ("/b", 1, ""), ("/b", 1, "quota"), ("/c", 2, "")
    ]  # fmt: skip


def test_frameworks_get_what_queues_of_their_role_leave_of_its_quota():
    hungry = a_framework(minimal=make(1, 512), roles=("ads",))
    result = units(
        limited(2, queue=[queued("/web", 1, role="ads")], frameworks=[hungry], state=DRY)
    )
    assert [unit.blocked_kind for unit in result] == ["", ""]
    result = units(
        limited(1, queue=[queued("/web", 1, role="ads")], frameworks=[hungry], state=DRY)
    )
    assert [unit.blocked_kind for unit in result] == ["", "quota"]


def test_work_that_is_blocked_anyway_takes_nothing_of_its_role_s_quota():
    stuck = queued("/stuck", 3, role="ads", rejections={"UnfulfilledRole": 1})
    hungry = a_framework(minimal=make(1, 512), roles=("ads",))
    result = units(limited(1, queue=[stuck], frameworks=[hungry], state=DRY))
    assert [(unit.name, unit.blocked_kind) for unit in result] == [
        ("/stuck", "role"),
        ("batch", ""),
    ]


def test_a_quota_counts_roles_below_it_and_no_others():
    assert the_unit(limited(0, role="ads", queue=[queued(role="ads/web")])).blocked_kind == "quota"
    assert the_unit(limited(0, role="ads", queue=[queued(role="adserver")])).blocked_kind == ""


def test_a_framework_is_stopped_by_its_quota_unless_it_has_a_role_without_one():
    hungry = a_framework(minimal=make(1, 512), roles=("ads",))
    assert the_unit(limited(0, frameworks=[hungry], state=DRY)).blocked_kind == "quota"
    assert (
        the_unit(
            limited(0, frameworks=[replace(hungry, roles=("ads", "free"))], state=DRY)
        ).blocked_kind
        == ""
    )


# the wire's quota is that of Mesos' quota.proto and mesos.proto: QuotaStatus{infos, configs}
QUOTA = {
    "status": {
        "infos": [
            {
                "role": "ads",
                "guarantee": [{"name": "cpus", "type": "SCALAR", "scalar": {"value": 9}}],
            }
        ],
        "configs": [
            {
                "role": "ads",
                "guarantees": {"cpus": {"value": 1}},
                "limits": {"cpus": {"value": 4.5}, "mem": {"value": 1024}},
            }
        ],
    }
}


def held(role: str, cpus: float) -> dict:
    return {
        "allocated_resources": [
            {
                "name": "cpus",
                "type": "SCALAR",
                "scalar": {"value": cpus},
                "allocation_info": {"role": role},
            },
            {
                "name": "ports",
                "type": "RANGES",
                "ranges": {"range": []},
                "allocation_info": {"role": role},
            },
        ]
    }


def test_quota_is_read_with_what_runs_in_the_role_and_below():
    (quota,) = quotas(QUOTA, [held("ads", 1), held("ads/web", 2), held("other", 4)])
    assert quota == Quota("ads", (4500, 1024000, None, None), make(3))


def test_masters_that_know_guarantees_only_bound_by_them():
    (quota,) = quotas({"status": {"infos": QUOTA["status"]["infos"]}}, [])
    assert quota.limit == (9000, None, None, None)


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"status": {}},
        {"status": {"configs": [{"role": "ads", "guarantees": {"cpus": {"value": 1}}}]}},
    ],
)
def test_without_quota_or_limits_nothing_is_bound(answer):
    assert quotas(answer, [held("ads", 1)]) == ()


# frameworks


def hungry(memory: PlannerState = DRY, **fields) -> Snapshot:
    return a_snapshot(
        frameworks=[a_framework(**{"minimal": make(1.5, 2000), **fields})], state=memory
    )


def marks(**before: int) -> dict[str, tuple[Mark, ...]]:
    return {
        "F-batch": (
            Mark(NOW - 15, **{"sent": 0, "accepted": 0, "declined": 0, "asked": 0, **before}),
        )
    }


def test_a_starving_framework_says_for_how_long_and_what_it_was_offered():
    unit = the_unit(hungry(replace(DRY, marks=marks(sent=10, declined=9)), sent=12, declined=11))
    assert render_all(unit.reasons).startswith(
        "batch finds no agent with 1.5 cpus, 2000 MiB memory free since 10 s"
    )
    assert "2 offers sent, 0 accepted, 2 declined in the last 15 s" in render_all(unit.reasons)


def test_a_lack_of_offers_counts_after_five_seconds():
    assert units(hungry(replace(DRY, dry_since={"F-batch": NOW - 4}))) == []


def roomy(memory: PlannerState, **fields) -> Snapshot:
    """An agent with 2 cpus and 7680 MiB free, and a framework."""
    machine = a_machine("i-t1", by="terraform")
    return a_snapshot(
        machines=[machine],
        agents=[an_agent(machine)],
        frameworks=[a_framework(**fields)],
        state=memory,
    )


def test_a_framework_that_declines_everything_too_small_for_its_tasks_wants_the_size_of_those():
    fields = {"minimal": make(1, 512), "task_shape": make(3, 4000), "sent": 9, "declined": 9}
    unit = the_unit(roomy(replace(DRY, marks=marks()), **fields))
    assert unit.shape == make(3, 4000)
    assert "declines all offers" in render_all(unit.reasons)
    taking = {**fields, "accepted": 1}
    assert units(roomy(replace(DRY, marks=marks()), **taking)) == []


def test_a_framework_that_never_suppresses_and_declines_offers_that_hold_its_tasks_is_not_hungry():
    fields = {"minimal": make(1, 512), "task_shape": make(1, 512), "sent": 99, "declined": 99}
    assert units(roomy(replace(DRY, marks=marks()), **fields)) == []


def unserved(finding: Finding | None, **fields) -> Snapshot:
    shape = make(1, 512)
    memory = replace(
        DRY,
        marks=marks(sent=7, declined=fields.get("declined", 0)),
        findings={} if finding is None else {text(shape): finding},
    )
    return roomy(memory, **{"minimal": shape, "sent": 7, **fields})


def test_a_framework_without_offers_counts_once_the_probe_framework_got_no_offer_either():
    unit = the_unit(unserved(Finding(NOW - 1, offered=False)))
    assert "the probe framework got no such offer either" in render_all(unit.reasons)
    assert demand.suspects(unserved(None), NOW) == (make(1, 512),)


@pytest.mark.parametrize(
    "finding", [None, Finding(NOW - 1, offered=True, where="h"), Finding(NOW - 11, offered=False)]
)
def test_free_resources_count_as_free_without_a_finding_of_the_probe_framework(finding):
    assert units(unserved(finding)) == []


def test_a_framework_whose_own_refusals_stand_is_not_unserved():
    refusing = {"refusals": 1, "declined": 7}
    assert units(unserved(Finding(NOW - 1, offered=False), **refusing)) == []
    assert demand.suspects(unserved(None, **refusing), NOW) == ()


def test_what_the_probe_framework_was_offered_disproves_that_there_is_none():
    shape = make(1.5, 2000)
    offered = the_unit(
        hungry(
            replace(DRY, findings={text(shape): Finding(NOW - 2, offered=True, where="10.0.0.7")})
        )
    )
    assert (offered.blocked_kind, "10.0.0.7" in render(offered.blocked)) == (
        "offers_available",
        True,
    )
    before = the_unit(
        hungry(
            replace(DRY, findings={text(shape): Finding(NOW - 12, offered=True, where="10.0.0.7")})
        )
    )
    assert before.blocked is None, "that was before it ran dry"


@pytest.mark.parametrize(
    ("view", "kind"),
    [
        ({"elected_at": NOW - 29}, "failover"),
        ({"recovered": 1}, "recovering"),
        ({"allocator_lag_s": 5.1}, "allocator"),
        ({}, ""),
    ],
)
def test_nothing_is_inferred_after_a_change_of_master_or_with_a_late_allocator(view, kind):
    snapshot = hungry()
    assert snapshot.cluster is not None
    unit = the_unit(replace(snapshot, cluster=replace(snapshot.cluster, **view)))
    assert unit.blocked_kind == kind
    assert bool(unit.blocked) == bool(kind)


def test_a_new_term_of_a_master_is_waited_out_where_the_master_does_not_say():
    assert the_unit(hungry(replace(DRY, leader_since=NOW - 29))).blocked_kind == "failover"


def test_a_framework_looks_only_at_agents_that_its_constraints_allow():
    machine = a_machine("i-t1", by="terraform")
    agent = an_agent(machine, attributes={"rack": "r1"})
    wants = a_framework(minimal=make(1, 512), constraints=(Constraint("rack", "IS", "r2"),))
    snapshot = a_snapshot(machines=[machine], agents=[agent], frameworks=[wants], state=DRY)
    assert the_unit(snapshot).constraints == wants.constraints
    other = replace(wants, constraints=(Constraint("rack", "IS", "r1"),))
    assert (
        units(a_snapshot(machines=[machine], agents=[agent], frameworks=[other], state=DRY)) == []
    )
    (verdict,) = plan(snapshot, NOW).verdicts
    assert (verdict.buying, verdict.refusal is not None and verdict.refusal.kind) == (
        0,
        "constraint",
    )


def test_counters_of_another_leader_are_not_taken_for_this_one_s():
    view = ClusterView(frameworks=(a_framework(sent=5, accepted=1),))
    known = {"F-batch": (Mark(NOW - 20, 50, 10, 40, 2),)}
    assert rates.of(view.frameworks[0], view, known, NOW) is None
    assert rates.marks(view, known, NOW) == {"F-batch": (Mark(NOW, 5, 1, 0, 0),)}


def test_rates_are_of_the_last_seconds_and_marks_change_every_four():
    known: dict[str, tuple[Mark, ...]] = {}
    written = 0
    for second in range(100):
        view = ClusterView(frameworks=(a_framework(sent=second, declined=second),))
        after = rates.marks(view, known, NOW + second)
        written += after != known
        known = after
        lately = rates.of(view.frameworks[0], view, known, NOW + second)
        if second >= 16:
            assert lately is not None
            assert 12 <= lately.window_s <= 16
            assert lately.sent == lately.window_s
    assert written == 25
    assert rates.marks(ClusterView(), known, NOW) == {}


def test_frameworks_of_one_name_are_separate_items():
    twins = [
        replace(a_framework(minimal=make(1.5, 2000)), framework_id=name) for name in ("F-1", "F-2")
    ]
    memory = replace(DRY, dry_since={"F-1": NOW - 10, "F-2": NOW - 10})
    assert len({unit.key for unit in units(a_snapshot(frameworks=twins, state=memory))}) == 2


def test_what_demand_remembers_survives_the_journal_and_the_beat():
    memory = replace(
        DRY,
        marks=marks(sent=3),
        findings={text(make(1, 512)): Finding(NOW, offered=True, where="h")},
        hint_baselines={"h1": make(2, 1024)},
        experiments={
            "F-batch": Experiment(
                {"ms-1": TrialLaunch(NOW, 1, 2, 0.096, make(1, 512))},
                {"i-1": NewAgent(NOW, 3)},
                guesses=(Guess(NOW, 0.096),),
            )
        },
    )
    assert msgspec.json.decode(msgspec.json.encode(memory), type=PlannerState) == memory
    assert (
        remembered(msgspec.json.decode(msgspec.json.encode(msgspec.to_builtins(memory)))) == memory
    )


# the wire


def info(framework_id: str, **fields) -> dict:
    return {
        "framework_info": {"id": {"value": framework_id}, "name": framework_id, **fields},
        "active": True,
        "connected": True,
    }


def single(*items: dict, metrics: dict[str, float] | None = None) -> Framework:
    (result,) = mesos_parsers.cluster_view(
        mesos_parsers.MasterAnswers(Agents(), (), {"frameworks": list(items)}, metrics or {})
    ).frameworks
    return result


def filters(cpus: float) -> dict:
    return {
        "min_allocatable_resources": {"quantities": [{"quantities": {"cpus": {"value": cpus}}}]}
    }


def test_only_roles_that_are_not_suppressed_count_with_what_they_declared():
    item = info("F1", roles=["a", "b/c"], offer_filters={"a": filters(1), "b/c": filters(4)})
    start = "master/frameworks/F1/F1/roles"
    result = single(item, metrics={f"{start}/a/suppressed": 1.0, f"{start}/b/c/suppressed": 0.0})
    assert (result.suppressed, result.roles, result.minimal) == (False, ("b/c",), make(4))
    silent = single(item, metrics={f"{start}/a/suppressed": 1.0, f"{start}/b/c/suppressed": 1.0})
    assert silent.suppressed
    assert single(item).minimal == make(1)


def test_counters_belong_to_framework_ids():
    item = info("F1")
    item["framework_info"]["name"] = "a b/c%"
    metrics = {
        "master/frameworks/a%20b%2Fc%25/F1/offers/sent": 3.0,
        "master/frameworks/F1/F2/offers/sent": 9.0,
    }
    assert single(item, metrics=metrics).sent == 3


def test_refusals_are_those_of_the_roles_in_which_it_takes_offers():
    metrics = {
        "allocator/mesos/offer_filters/roles/a/active": 2.0,
        "allocator/mesos/offer_filters/roles/b/active": 5.0,
        "master/frameworks/F1/F1/roles/b/suppressed": 1.0,
    }
    assert single(info("F1", roles=["a", "b"]), metrics=metrics).refusals == 2


def test_what_is_reserved_is_free_for_its_role_alone():
    def cpus(amount: float, **fields) -> dict:
        return {"name": "cpus", "type": "SCALAR", "scalar": {"value": amount}, **fields}

    ads = {"reservations": [{"type": "DYNAMIC", "role": "ads"}]}
    item = {
        "agent_info": {"id": {"value": "S1"}},
        "active": True,
        "total_resources": [cpus(2), cpus(4, **ads), cpus(1, role="old")],
        "allocated_resources": [cpus(1), cpus(1, **ads)],
    }
    (agent,) = AgentReader().read(msgspec.json.encode({"get_agents": {"agents": [item]}})).agents
    assert (agent.free, dict(agent.reserved)) == (make(1), {"ads": make(3), "old": make(1)})
    assert agent.allocated == make(2)

    def wants(role: str) -> list[DemandItem]:
        return units(
            a_snapshot(
                machines=[],
                agents=[agent],
                frameworks=[a_framework(minimal=make(3), roles=(role,))],
                state=DRY,
            )
        )

    assert wants("ads") == wants("ads/web") == []
    assert [unit.shape for unit in wants("other")] == [make(3)]


def test_the_autoscaler_s_own_framework_wants_nothing():
    assert (
        mesos_parsers.cluster_view(
            mesos_parsers.MasterAnswers(Agents(), (), {"frameworks": [info(PROBE)]}, {})
        ).frameworks
        == ()
    )


def test_the_allocator_s_lateness_and_the_election_are_part_of_the_view():
    view = mesos_parsers.cluster_view(
        mesos_parsers.MasterAnswers(
            Agents(), (), {}, {"allocator/mesos/allocation_run_latency_ms": 1500.0}, elected_at=12.0
        )
    )
    assert (view.allocator_lag_s, view.elected_at) == (1.5, 12.0)


@pytest.mark.parametrize(
    ("predicate", "expected"),
    [
        ({"text_equals": {"value": "r.1"}}, Constraint("rack", "IS", "r.1")),
        ({"text_not_equals": {"value": "r.1"}}, Constraint("rack", "UNLIKE", "r\\.1")),
        ({"text_matches": {"regex": "r.*"}}, Constraint("rack", "LIKE", "r.*")),
        ({"text_not_matches": {"regex": "r.*"}}, Constraint("rack", "UNLIKE", "r.*")),
        ({"exists": {}}, Constraint("rack", "LIKE", ".*")),
        ({"not_exists": {}}, Constraint("rack", "UNLIKE", ".*")),
    ],
)
def test_offer_constraints_read_as_the_services_constraints_do(predicate, expected):
    group = {
        "attribute_constraints": [{"selector": {"attribute_name": "rack"}, "predicate": predicate}]
    }
    assert offer_constraints({"role_constraints": {"*": {"groups": [group, {}]}}}, ["*"]) == (
        expected,
    )
    assert offer_constraints({"role_constraints": {"*": {"groups": [group]}}}, ["other"]) == ()


def test_a_framework_whose_queue_is_read_is_not_looked_at_through_its_counters():
    agents = {"frameworks": [info("F-services", offer_filters={"*": filters(1)}), info("F2")]}
    view = mesos_parsers.cluster_view(
        mesos_parsers.MasterAnswers(Agents(), (), agents, {}), own=["F-services"]
    )
    assert [framework.framework_id for framework in view.frameworks] == ["F2"]


def test_full_agents_and_no_demand_is_no_demand():
    machine = a_machine("i-t1", by="terraform")
    assert units(a_snapshot(machines=[machine], agents=[full(machine)])) == []
