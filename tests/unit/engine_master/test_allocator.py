"""Dominant resource fairness, filters, suppression."""

from __future__ import annotations

import pytest

from mesaform.common.resources import Resources
from mesaform.engine.allocator import MOST_REFUSALS, Allocator

BIG = Resources.of(cpus=9, mem_mib=18 * 1024, ports=[(31000, 31009)])


def an_allocator(
    *frameworks: tuple[str, str], agents: int = 1, size: Resources = BIG, **kw
) -> Allocator:
    allocator = Allocator(**kw)
    for name, role in frameworks:
        allocator.add_framework(name, [role])
    for number in range(agents):
        allocator.add_agent(f"a{number}", size)
    return allocator


def winners(allocator: Allocator, now: float = 0.0) -> list[tuple[str, str]]:
    return [
        (allocation.framework_id, allocation.agent_id) for allocation in allocator.allocate(now)
    ]


def test_an_offer_has_all_free_resources_of_an_agent_with_its_ports():
    allocator = an_allocator(("f", "*"))
    assert [allocation.resources for allocation in allocator.allocate(0.0)] == [BIG]
    assert allocator.free("a0").is_empty


def test_the_framework_with_the_smaller_dominant_share_comes_first():
    allocator = an_allocator(("small", "*"), ("large", "*"), agents=3)
    allocator.claim("large", "*", "a0", Resources.of(cpus=1))
    allocator.claim("small", "*", "a0", Resources.of(cpus=0.5, mem_mib=512))
    assert winners(allocator)[0][0] == "small"


def test_the_dominant_share_is_the_largest_over_all_scalars_not_their_sum():
    # 6 of 18 cpus (1/3) and nothing else, against 5 cpus (5/18) with 1/6 of the memory.
    # The sum of the latter is larger, its maximum is smaller.
    allocator = an_allocator(("cpu-only", "*"), ("balanced", "*"), agents=2)
    allocator.claim("cpu-only", "*", "a0", Resources.of(cpus=6))
    allocator.claim("balanced", "*", "a1", Resources.of(cpus=5, mem_mib=6 * 1024))
    assert winners(allocator)[0][0] == "balanced"


def test_memory_can_be_the_dominant_resource():
    allocator = an_allocator(("memory", "*"), ("cpu", "*"), agents=2)
    allocator.claim("memory", "*", "a0", Resources.of(cpus=0.5, mem_mib=12 * 1024))
    allocator.claim("cpu", "*", "a1", Resources.of(cpus=3, mem_mib=512))
    assert winners(allocator)[0][0] == "cpu"


def test_the_dominant_share_is_not_the_smallest_one():
    # 1/3 of the cpus with 1/36 of the memory, against 2/9 of the cpus with 1/6 of the memory.
    allocator = an_allocator(("narrow", "*"), ("wide", "*"), agents=2)
    allocator.claim("narrow", "*", "a0", Resources.of(cpus=6, mem_mib=1024))
    allocator.claim("wide", "*", "a1", Resources.of(cpus=4, mem_mib=6 * 1024))
    assert winners(allocator)[0][0] == "wide"


def test_the_other_frameworks_shares_outlive_the_removal_of_one():
    allocator = an_allocator(("gone", "*"), ("large", "*"), ("late", "*"), agents=3)
    allocator.claim("gone", "*", "a0", Resources.of(cpus=1))
    allocator.claim("large", "*", "a1", Resources.of(cpus=8))
    allocator.claim("late", "*", "a2", Resources.of(cpus=2))
    allocator.remove_framework("gone")
    assert winners(allocator)[0][0] == "late"


def test_roles_are_served_before_the_frameworks_in_them():
    allocator = an_allocator(("a", "busy"), ("b", "busy"), ("c", "idle"), agents=2)
    allocator.claim("a", "busy", "a0", Resources.of(cpus=2))
    assert winners(allocator)[0][0] == "c"


def test_weights_divide_a_roles_share():
    allocator = an_allocator(("a", "heavy"), ("b", "light"), agents=2, weights={"heavy": 4.0})
    allocator.claim("a", "heavy", "a0", Resources.of(cpus=2))
    allocator.claim("b", "light", "a1", Resources.of(cpus=1))
    assert winners(allocator)[0][0] == "a"


def test_equal_shares_are_ranked_by_number_of_allocations_and_then_by_name():
    allocator = an_allocator(("b", "*"), ("a", "*"))
    assert winners(allocator) == [("a", "a0")]
    allocator.recover("a", "*", "a0", BIG, now=0.0)
    assert winners(allocator) == [("b", "a0")]


def test_many_agents_are_spread_over_equal_frameworks():
    allocator = an_allocator(("a", "*"), ("b", "*"), agents=10)
    counts = [framework for framework, _ in winners(allocator)]
    assert counts.count("a") == counts.count("b") == 5


def test_agents_are_taken_in_the_order_of_the_injected_shuffle():
    allocator = an_allocator(("f", "*"), agents=3, shuffle=lambda agents: agents.reverse())
    assert [agent for _, agent in winners(allocator)] == ["a2", "a1", "a0"]


def test_a_refusal_holds_until_it_expires():
    allocator = an_allocator(("f", "*"))
    allocator.allocate(0.0)
    allocator.recover("f", "*", "a0", BIG, now=0.0, refuse_s=4.0)
    assert winners(allocator, 3.9) == []
    assert winners(allocator, 4.0) == [("f", "a0")]


def test_a_refusal_lasts_at_least_one_interval_but_zero_is_none():
    allocator = an_allocator(("f", "*"), interval_s=1.0)
    allocator.allocate(0.0)
    allocator.recover("f", "*", "a0", BIG, now=0.0, refuse_s=0.1)
    assert winners(allocator, 0.5) == []
    assert winners(allocator, 1.0) == [("f", "a0")]
    allocator.recover("f", "*", "a0", BIG, now=1.0, refuse_s=0.0)
    assert winners(allocator, 1.0) == [("f", "a0")]


def test_a_negative_refusal_means_the_default_and_a_huge_one_a_year():
    allocator = an_allocator(("f", "*"))
    allocator.allocate(0.0)
    allocator.recover("f", "*", "a0", BIG, now=0.0, refuse_s=-1.0)
    assert winners(allocator, 4.9) == []
    assert winners(allocator, 5.0) == [("f", "a0")]
    allocator.recover("f", "*", "a0", BIG, now=5.0, refuse_s=1e12)
    assert winners(allocator, 300 * 86400.0) == []
    assert winners(allocator, 366 * 86400.0) == [("f", "a0")]


def test_a_refusal_does_not_hold_when_more_is_free_than_was_refused():
    allocator = an_allocator(("f", "*"))
    allocator.claim("other", "*", "a0", Resources.of(cpus=1))
    rest = allocator.allocate(0.0)[0].resources
    allocator.recover("f", "*", "a0", rest, now=0.0, refuse_s=1000.0)
    assert winners(allocator, 1.0) == []
    allocator.recover("other", "*", "a0", Resources.of(cpus=1), now=1.0)
    assert winners(allocator, 1.0) == [("f", "a0")]


def test_a_refusal_holds_when_less_is_free_than_was_refused():
    allocator = an_allocator(("f", "*"))
    allocator.allocate(0.0)
    allocator.recover("f", "*", "a0", BIG, now=0.0, refuse_s=1000.0)
    allocator.claim("other", "*", "a0", Resources.of(cpus=1))
    assert winners(allocator, 1.0) == []


def test_a_refusal_is_of_one_framework_on_one_agent_in_one_role():
    allocator = an_allocator(("f", "*"), ("g", "*"), agents=2)
    allocator.add_framework("f", ["*", "second"])
    for allocation in allocator.allocate(0.0):
        allocator.recover(
            allocation.framework_id,
            allocation.role,
            allocation.agent_id,
            allocation.resources,
            now=0.0,
            refuse_s=1000.0 if allocation.agent_id == "a0" else 0.0,
        )
    assert "a1" in [agent for _, agent in winners(allocator, 0.0)]


def test_revive_removes_refusals_and_suppression():
    allocator = an_allocator(("f", "*"))
    allocator.allocate(0.0)
    allocator.recover("f", "*", "a0", BIG, now=0.0, refuse_s=1000.0)
    allocator.suppress("f")
    allocator.revive("f")
    assert winners(allocator, 0.0) == [("f", "a0")]


def test_suppressed_roles_get_no_offers_and_others_do():
    allocator = Allocator()
    allocator.add_framework("f", ["x", "y"])
    allocator.add_agent("a0", BIG)
    allocator.suppress("f", ["x"])
    assert [allocation.role for allocation in allocator.allocate(0.0)] == ["y"]
    allocator.suppress("f")
    allocator.add_agent("a1", BIG)
    assert allocator.allocate(0.0) == []


def test_less_than_the_smallest_allocatable_is_not_offered():
    allocator = an_allocator(("f", "*"), size=Resources.of(cpus=0.009, mem_mib=31, ports=[(1, 2)]))
    assert allocator.allocate(0.0) == []
    allocator = an_allocator(("f", "*"), size=Resources.of(mem_mib=32))
    assert len(allocator.allocate(0.0)) == 1


def test_offers_below_the_declared_minimum_are_not_made():
    allocator = Allocator()
    allocator.add_framework("f", ["*"], min_allocatable={"*": (Resources.of(cpus=10),)})
    allocator.add_agent("a0", BIG)
    assert allocator.allocate(0.0) == []
    allocator.add_agent("a1", BIG + BIG)
    assert winners(allocator) == [("f", "a1")]


def test_agents_with_gpus_are_offered_to_gpu_aware_frameworks_only():
    allocator = Allocator()
    allocator.add_agent("a0", Resources.of(cpus=4, gpus=1))
    allocator.add_framework("plain", ["*"])
    assert allocator.allocate(0.0) == []
    allocator.add_framework("learner", ["*"], gpu_aware=True)
    assert winners(allocator) == [("learner", "a0")]


def test_an_inactive_agent_is_not_offered():
    allocator = an_allocator(("f", "*"))
    allocator.set_agent_active("a0", active=False)
    assert allocator.allocate(0.0) == []


def test_a_disconnected_framework_gets_no_offers_and_loses_its_refusals():
    allocator = an_allocator(("f", "*"))
    allocator.allocate(0.0)
    allocator.recover("f", "*", "a0", BIG, now=0.0, refuse_s=1000.0)
    allocator.deactivate_framework("f")
    assert allocator.allocate(0.0) == []
    allocator.add_framework("f", ["*"])
    assert winners(allocator) == [("f", "a0")]


def test_removing_an_agent_removes_its_share_of_the_cluster():
    allocator = an_allocator(("f", "*"), ("g", "*"), agents=2)
    allocator.claim("f", "*", "a0", Resources.of(cpus=8))
    allocator.remove_agent("a0")
    assert allocator.shares() == {"*": 0.0}
    assert allocator.cluster()[0]["cpus"] == 9.0


def test_an_agent_that_grows_offers_the_difference():
    allocator = an_allocator(("f", "*"))
    allocator.claim("f", "*", "a0", Resources.of(cpus=1))
    allocator.update_agent("a0", BIG + Resources.of(cpus=3))
    assert allocator.free("a0").cpus == 11.0


def test_a_framework_far_behind_is_served_repeatedly_until_shares_are_equal():
    allocator = an_allocator(("ahead", "*"), ("behind", "*"), agents=9)
    for agent in ("a0", "a1", "a2"):
        allocator.claim("ahead", "*", agent, BIG)
    counts = [framework for framework, _ in winners(allocator)]
    assert counts[:3] == ["behind", "behind", "behind"]
    assert counts.count("ahead") == 2


def test_removing_a_framework_leaves_the_shares_of_the_others():
    allocator = an_allocator(("leaving", "*"), ("large", "*"), ("small", "*"), agents=2)
    allocator.claim("leaving", "*", "a0", Resources.of(cpus=1))
    allocator.claim("large", "*", "a0", Resources.of(cpus=4))
    allocator.claim("small", "*", "a0", Resources.of(cpus=2))
    allocator.recover("leaving", "*", "a0", Resources.of(cpus=1), now=0.0)
    allocator.remove_framework("leaving")
    assert winners(allocator)[0][0] == "small"


def test_removing_a_framework_removes_its_own_share():
    allocator = an_allocator(("f", "*"), ("other", "*"), agents=2)
    allocator.claim("f", "*", "a0", Resources.of(cpus=6))
    allocator.claim("other", "*", "a1", Resources.of(cpus=2))
    allocator.remove_framework("f")
    allocator.add_framework("f", ["*"])
    assert winners(allocator)[0][0] == "f"


def test_names_of_roles_that_nobody_has_are_forgotten():
    allocator = an_allocator(("f", "a"))
    for number in range(50):
        allocator.add_framework("f", [f"role-{number}"])
        [allocation] = allocator.allocate(0.0)
        if number % 2:  # what the offer held returns after the framework has left the role
            allocator.add_framework("f", [f"role-{number + 1}"])
        allocator.recover("f", allocation.role, "a0", allocation.resources, now=0.0)
    allocator.add_framework("f", ["last"])
    assert not allocator._clients
    assert not allocator._roles


def test_a_role_that_another_framework_holds_resources_in_is_kept():
    allocator = an_allocator(("holder", "a"), ("leaver", "a"))
    allocator.claim("holder", "a", "a0", Resources.of(cpus=3))
    allocator.add_framework("leaver", ["b"])
    assert allocator.shares()["a"] == pytest.approx(1 / 3)
    allocator.remove_framework("leaver")
    assert allocator.shares() == {"a": pytest.approx(1 / 3)}


def test_refusals_of_a_framework_are_bounded_and_the_longest_ones_stay():
    allocator = an_allocator(("f", "*"))
    for number in range(3 * MOST_REFUSALS):  # none contains another one
        shape = Resources.of(cpus=1 + number / 1000, mem_mib=1000 - number)
        allocator.claim("f", "*", "a0", shape)
        allocator.recover("f", "*", "a0", shape, now=0.0, refuse_s=100.0 + number)
    assert allocator.active_filters() == {"*": MOST_REFUSALS}
    kept = [refusal.until for refusal in allocator._refusals["f", "*", "a0"]]
    assert min(kept) == 100.0 + 2 * MOST_REFUSALS


def test_a_refusal_replaces_those_that_it_contains():
    allocator = an_allocator(("f", "*"))
    for _ in range(50):
        allocator.claim("f", "*", "a0", BIG)
        allocator.recover("f", "*", "a0", BIG, now=0.0, refuse_s=60.0)
    assert allocator.active_filters() == {"*": 1}
    assert winners(allocator, 59.0) == []
    assert winners(allocator, 61.0) == [("f", "a0")]
