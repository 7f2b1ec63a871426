"""The plan of a teardown, a pure function: complete, ordered, and only of the cluster's own."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesaform.aws.resources.owned import KEPT_UNLESS_ASKED, OwnedResource
from mesaform.aws.resources.registry import (
    deletion_rank,
    in_deletion_order,
    registered_kinds,
)
from mesaform.common.errors import NotOwned
from mesaform.teardown.plan import (
    DESTROY_ORDER,
    STEP_ORDER,
    Inventory,
    SurveyedMachine,
    TeardownRequest,
    drain_order,
    plan,
)

OURS = {"mesaform:cluster": "one"}


def machine(
    number: int,
    *,
    role: str = "agent",
    managed_by: str = "terraform",
    tasks: int = 0,
    usd: float | None = 0.1,
    registered: bool = True,
) -> SurveyedMachine:
    return SurveyedMachine(
        instance_id=f"i-{number}",
        tags=OURS,
        instance_type="m5.large",
        zone="us-east-1a",
        capacity="on-demand",
        role=role,
        pool="default" if role == "agent" else "",
        managed_by=managed_by,
        state="running",
        launched_at=0.0,
        usd_per_hour=usd,
        agent_id=f"S{number}" if role == "agent" and registered else "",
        tasks=tasks if registered else 0,
    )


def whole_cluster() -> Inventory:
    """Three masters, two agents of Terraform, one of the autoscaler, with disks and network."""
    masters = [machine(n, role="master") for n in (1, 2, 3)]
    agents = [
        machine(4, tasks=3),
        machine(5),
        machine(6, managed_by="autoscaler", tasks=1, usd=0.4),
    ]
    disks = [
        OwnedResource(
            "volume",
            f"vol-{m.instance_id}",
            OURS,
            usd_per_hour=0.001,
            deleted_with_instance=m.instance_id,
        )
        for m in masters + agents
    ]
    things = [
        OwnedResource("vpc", "vpc-1", OURS),
        OwnedResource("launch template", "lt-1", OURS),
        OwnedResource("image", "ami-1", OURS, usd_per_hour=0.002),
    ]
    return Inventory(
        cluster="one",
        machines=(*masters, *agents),
        resources=(*disks, *things),
        stacks={
            "network": frozenset({"vpc-1"}),
            "masters": frozenset({"i-1", "i-2", "i-3"}),
            "agents": frozenset({"i-4", "i-5", "lt-1"}),
        },
        has_leader=True,
        autoscaler_alive=True,
    )


def everything_of(inventory: Inventory) -> list[Any]:
    return [*inventory.machines, *inventory.resources]


def test_a_whole_cluster_goes_in_the_order_of_the_design() -> None:
    steps = plan(whole_cluster(), TeardownRequest()).steps
    shown = [(step.kind, step.stack) for step in steps]
    assert shown == [
        ("freeze", ""),
        ("deactivate", ""),
        ("drain", ""),
        ("terminate", ""),
        ("destroy", "agents"),
        ("destroy", "masters"),
        ("destroy", "network"),
        ("sweep", ""),
    ]


def test_the_emptiest_and_then_the_dearest_agents_drain_first() -> None:
    cheap, dear, busy = (
        machine(1, tasks=1, usd=0.1),
        machine(2, tasks=1, usd=0.9),
        machine(3, tasks=9, usd=5.0),
    )
    assert [entry.instance_id for entry in drain_order([busy, cheap, dear])] == [
        "i-2",
        "i-1",
        "i-3",
    ]


def test_empty_agents_are_deactivated_and_not_drained() -> None:
    steps = {step.kind: step for step in plan(whole_cluster(), TeardownRequest()).steps}
    assert steps["deactivate"].touches == ("i-4", "i-5", "i-6")
    assert steps["drain"].touches == ("i-6", "i-4")


def test_without_a_leader_nothing_is_asked_of_agents() -> None:
    inventory = Inventory("one", (machine(1, tasks=4),), stacks={"agents": frozenset({"i-1"})})
    assert [step.kind for step in plan(inventory, TeardownRequest()).steps] == ["destroy", "sweep"]


def test_a_dead_autoscaler_is_not_waited_for() -> None:
    inventory = Inventory("one", (machine(1),), has_leader=True)
    assert "freeze" not in {step.kind for step in plan(inventory, TeardownRequest()).steps}


def test_a_disk_goes_with_its_machine() -> None:
    steps = {
        step.stack or step.kind: step for step in plan(whole_cluster(), TeardownRequest()).steps
    }
    assert ("volume", "vol-i-6") in steps["terminate"].removes
    assert ("volume", "vol-i-1") in steps["masters"].removes


def test_when_the_state_is_lost_the_sweep_takes_everything() -> None:
    whole = whole_cluster()
    lost = Inventory(
        whole.cluster, whole.machines, whole.resources, {}, has_leader=True, autoscaler_alive=True
    )
    planned = plan(lost, TeardownRequest(images=True))
    assert planned.stacks == ()
    assert planned.removes() == {item.key for item in everything_of(whole)}


def test_agents_only_leaves_masters_and_network() -> None:
    planned = plan(whole_cluster(), TeardownRequest(agents_only=True))
    assert planned.stacks == ("agents",)
    assert {f"i-{n}" for n in (4, 5, 6)} == {
        identity for kind, identity in planned.removes() if kind == "instance"
    }
    assert {entry.id for entry in planned.kept} == {
        "i-1",
        "i-2",
        "i-3",
        "vol-i-1",
        "vol-i-2",
        "vol-i-3",
        "vpc-1",
        "ami-1",
    }


def test_images_are_kept_with_their_cost_unless_asked() -> None:
    kept = plan(whole_cluster(), TeardownRequest())
    assert [entry.id for entry in kept.kept] == ["ami-1"]
    assert kept.kept_usd_per_hour == pytest.approx(0.002)
    assert plan(whole_cluster(), TeardownRequest(images=True)).kept == ()


def test_an_inventory_with_a_strangers_thing_is_refused_whole() -> None:
    stranger = OwnedResource("vpc", "vpc-9", {"mesaform:cluster": "other"})
    with pytest.raises(NotOwned, match="vpc-9"):
        plan(Inventory("one", resources=(stranger,)), TeardownRequest())


def test_a_machine_without_a_price_is_named() -> None:
    assert plan(Inventory("one", (machine(1, usd=None),)), TeardownRequest()).unpriced == (
        "m5.large",
    )


machines = st.builds(
    machine,
    st.integers(0, 10_000),
    role=st.sampled_from(["master", "agent", "builder"]),
    managed_by=st.sampled_from(["terraform", "autoscaler", "bake", ""]),
    tasks=st.integers(0, 5),
    usd=st.one_of(st.none(), st.floats(0, 40)),
    registered=st.booleans(),
)


@st.composite
def inventories(draw: st.DrawFn) -> Inventory:
    held = draw(st.lists(machines, max_size=12, unique_by=lambda entry: entry.instance_id))
    ids = [entry.instance_id for entry in held]
    kinds = [kind for kind in registered_kinds() if kind != "instance"]
    resources = draw(
        st.lists(
            st.builds(
                OwnedResource,
                st.sampled_from(kinds),
                st.integers(0, 10_000).map(lambda n: f"r-{n}"),
                st.just(OURS),
                usd_per_hour=st.floats(0, 1),
                deleted_with_instance=st.sampled_from(["", "i-gone", *ids]),
            ),
            max_size=20,
            unique_by=lambda entry: entry.key,
        )
    )
    everything = st.sampled_from([*ids, *(entry.id for entry in resources), "i-forgotten"])
    homes = draw(st.dictionaries(everything, st.sampled_from(DESTROY_ORDER)))
    stacks = {
        stack: frozenset(entry for entry, home in homes.items() if home == stack)
        for stack in DESTROY_ORDER
    }
    return Inventory(
        "one",
        tuple(held),
        tuple(resources),
        {stack: ids for stack, ids in stacks.items() if ids},
        has_leader=draw(st.booleans()),
        autoscaler_alive=draw(st.booleans()),
    )


wishes = st.sampled_from(
    [TeardownRequest(), TeardownRequest(images=True), TeardownRequest(agents_only=True)]
)


@given(inventories(), wishes)
def test_everything_owned_is_in_exactly_one_step_or_kept(
    inventory: Inventory, request: TeardownRequest
) -> None:
    planned = plan(inventory, request)
    removed = [key for step in planned.steps for key in step.removes]
    places = removed + [entry.key for entry in planned.kept]
    assert sorted(places) == sorted(item.key for item in everything_of(inventory))


@given(inventories(), wishes)
def test_steps_come_in_order_and_the_sweep_is_last(
    inventory: Inventory, request: TeardownRequest
) -> None:
    steps = plan(inventory, request).steps
    assert [STEP_ORDER.index(step.kind) for step in steps] == sorted(
        STEP_ORDER.index(step.kind) for step in steps
    )
    assert steps[-1].kind == "sweep"
    stacks = [step.stack for step in steps if step.kind == "destroy"]
    assert stacks == [stack for stack in DESTROY_ORDER if stack in stacks]


@given(inventories(), wishes)
def test_the_dollars_of_the_steps_add_up(inventory: Inventory, request: TeardownRequest) -> None:
    planned = plan(inventory, request)
    total = sum(item.usd_per_hour or 0.0 for item in everything_of(inventory))
    assert sum(step.usd_per_hour for step in planned.steps) == pytest.approx(
        planned.usd_per_hour, abs=1e-4
    )
    assert planned.usd_per_hour + planned.kept_usd_per_hour == pytest.approx(total, abs=1e-4)


@given(inventories())
def test_only_images_survive_a_whole_teardown(inventory: Inventory) -> None:
    assert {entry.kind for entry in plan(inventory, TeardownRequest()).kept} <= KEPT_UNLESS_ASKED


@given(inventories())
def test_agents_only_never_touches_another_machine(inventory: Inventory) -> None:
    removed = plan(inventory, TeardownRequest(agents_only=True)).removes()
    assert all(entry.role == "agent" for entry in inventory.machines if entry.key in removed)


@given(inventories(), wishes)
def test_only_agents_the_engine_knows_are_spoken_to(
    inventory: Inventory, request: TeardownRequest
) -> None:
    known = {entry.instance_id for entry in inventory.machines if entry.agent_id}
    for step in plan(inventory, request).steps:
        assert set(step.touches) <= known
        assert not step.touches or inventory.has_leader


def test_a_plans_order_of_kinds_respects_what_depends_on_what() -> None:
    needs_gone_first = [
        ("vpc", "subnet"),
        ("vpc", "security group"),
        ("vpc", "internet gateway"),
        ("vpc", "route table"),
        ("subnet", "network interface"),
        ("subnet", "instance"),
        ("security group", "instance"),
        ("security group", "network interface"),
        ("volume", "instance"),
        ("snapshot", "image"),
        ("role", "instance profile"),
        ("policy", "role"),
        ("elastic address", "nat gateway"),
        ("subnet", "nat gateway"),
        ("instance profile", "instance"),
        ("subnet", "vpc endpoint"),
        ("route table", "subnet"),
    ]
    for later, earlier in needs_gone_first:
        assert deletion_rank(earlier) < deletion_rank(later), f"{earlier} before {later}"
    assert [
        entry.kind
        for entry in in_deletion_order([OwnedResource("vpc", "v"), OwnedResource("instance", "i")])
    ] == [
        "instance",
        "vpc",
    ]
