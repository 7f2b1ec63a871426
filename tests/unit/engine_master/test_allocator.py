"""Dominant resource fairness, filters, suppression."""

from __future__ import annotations

from mesaform.common.resources import Resources
from mesaform.engine.allocator import Allocator

BIG = Resources.of(cpus=9, mem_mib=18 * 1024, ports=[(31000, 31009)])


def allocator(
    *frameworks: tuple[str, str], agents: int = 1, size: Resources = BIG, **kw
) -> Allocator:
    made = Allocator(**kw)
    for name, role in frameworks:
        made.add_framework(name, [role])
    for number in range(agents):
        made.add_agent(f"a{number}", size)
    return made


def winners(made: Allocator, now: float = 0.0) -> list[tuple[str, str]]:
    return [(one.framework_id, one.agent_id) for one in made.allocate(now)]


def test_an_offer_is_all_that_is_free_on_an_agent_ports_included():
    made = allocator(("f", "*"))
    assert [one.resources for one in made.allocate(0.0)] == [BIG]
    assert made.free("a0").is_empty


def test_the_framework_with_the_smaller_dominant_share_comes_first():
    made = allocator(("hungry", "*"), ("fed", "*"), agents=3)
    made.claim("fed", "*", "a0", Resources.of(cpus=1))
    made.claim("hungry", "*", "a0", Resources.of(cpus=0.5, mem_mib=512))
    assert winners(made)[0][0] == "hungry"


def test_the_dominant_share_is_the_largest_over_all_scalars_not_their_sum():
    # 6 of 18 cpus (1/3) and nothing else, against 5 cpus (5/18) with 1/6 of the memory: the latter's sum is larger, its maximum is not.
    made = allocator(("one-sided", "*"), ("balanced", "*"), agents=2)
    made.claim("one-sided", "*", "a0", Resources.of(cpus=6))
    made.claim("balanced", "*", "a1", Resources.of(cpus=5, mem_mib=6 * 1024))
    assert winners(made)[0][0] == "balanced"


def test_memory_can_be_the_dominant_resource():
    made = allocator(("memory", "*"), ("cpu", "*"), agents=2)
    made.claim("memory", "*", "a0", Resources.of(cpus=0.5, mem_mib=12 * 1024))
    made.claim("cpu", "*", "a1", Resources.of(cpus=3, mem_mib=512))
    assert winners(made)[0][0] == "cpu"


def test_roles_are_served_before_the_frameworks_in_them():
    made = allocator(("a", "busy"), ("b", "busy"), ("c", "idle"), agents=2)
    made.claim("a", "busy", "a0", Resources.of(cpus=2))
    assert winners(made)[0][0] == "c"


def test_weights_divide_a_roles_share():
    made = allocator(("a", "heavy"), ("b", "light"), agents=2, weights={"heavy": 4.0})
    made.claim("a", "heavy", "a0", Resources.of(cpus=2))
    made.claim("b", "light", "a1", Resources.of(cpus=1))
    assert winners(made)[0][0] == "a"


def test_equal_shares_go_to_whom_was_given_something_less_often_then_by_name():
    made = allocator(("b", "*"), ("a", "*"))
    assert winners(made) == [("a", "a0")]
    made.recover("a", "*", "a0", BIG, now=0.0)
    assert winners(made) == [("b", "a0")]


def test_many_agents_are_spread_over_equal_frameworks():
    made = allocator(("a", "*"), ("b", "*"), agents=10)
    counts = [framework for framework, _ in winners(made)]
    assert counts.count("a") == counts.count("b") == 5


def test_agents_are_taken_in_the_order_of_the_injected_shuffle():
    made = allocator(("f", "*"), agents=3, shuffle=lambda agents: agents.reverse())
    assert [agent for _, agent in winners(made)] == ["a2", "a1", "a0"]


def test_a_refusal_holds_until_it_expires():
    made = allocator(("f", "*"))
    made.allocate(0.0)
    made.recover("f", "*", "a0", BIG, now=0.0, refuse_s=4.0)
    assert winners(made, 3.9) == []
    assert winners(made, 4.0) == [("f", "a0")]


def test_a_refusal_lasts_at_least_one_interval_but_zero_is_none():
    made = allocator(("f", "*"), interval_s=1.0)
    made.allocate(0.0)
    made.recover("f", "*", "a0", BIG, now=0.0, refuse_s=0.1)
    assert winners(made, 0.5) == []
    assert winners(made, 1.0) == [("f", "a0")]
    made.recover("f", "*", "a0", BIG, now=1.0, refuse_s=0.0)
    assert winners(made, 1.0) == [("f", "a0")]


def test_a_negative_refusal_means_the_default_and_a_huge_one_a_year():
    made = allocator(("f", "*"))
    made.allocate(0.0)
    made.recover("f", "*", "a0", BIG, now=0.0, refuse_s=-1.0)
    assert winners(made, 4.9) == []
    assert winners(made, 5.0) == [("f", "a0")]
    made.recover("f", "*", "a0", BIG, now=5.0, refuse_s=1e12)
    assert winners(made, 300 * 86400.0) == []
    assert winners(made, 366 * 86400.0) == [("f", "a0")]


def test_a_refusal_does_not_hold_when_more_is_free_than_was_refused():
    made = allocator(("f", "*"))
    made.claim("other", "*", "a0", Resources.of(cpus=1))
    rest = made.allocate(0.0)[0].resources
    made.recover("f", "*", "a0", rest, now=0.0, refuse_s=1000.0)
    assert winners(made, 1.0) == []
    made.recover("other", "*", "a0", Resources.of(cpus=1), now=1.0)
    assert winners(made, 1.0) == [("f", "a0")]


def test_a_refusal_holds_when_less_is_free_than_was_refused():
    made = allocator(("f", "*"))
    made.allocate(0.0)
    made.recover("f", "*", "a0", BIG, now=0.0, refuse_s=1000.0)
    made.claim("other", "*", "a0", Resources.of(cpus=1))
    assert winners(made, 1.0) == []


def test_a_refusal_is_one_frameworks_on_one_agent_in_one_role():
    made = allocator(("f", "*"), ("g", "*"), agents=2)
    made.add_framework("f", ["*", "second"])
    for one in made.allocate(0.0):
        made.recover(
            one.framework_id,
            one.role,
            one.agent_id,
            one.resources,
            now=0.0,
            refuse_s=1000.0 if one.agent_id == "a0" else 0.0,
        )
    assert "a1" in [agent for _, agent in winners(made, 0.0)]


def test_revive_forgets_refusals_and_suppression():
    made = allocator(("f", "*"))
    made.allocate(0.0)
    made.recover("f", "*", "a0", BIG, now=0.0, refuse_s=1000.0)
    made.suppress("f")
    made.revive("f")
    assert winners(made, 0.0) == [("f", "a0")]


def test_suppressed_roles_get_nothing_and_others_do():
    made = Allocator()
    made.add_framework("f", ["x", "y"])
    made.add_agent("a0", BIG)
    made.suppress("f", ["x"])
    assert [one.role for one in made.allocate(0.0)] == ["y"]
    made.suppress("f")
    made.add_agent("a1", BIG)
    assert made.allocate(0.0) == []


def test_less_than_the_smallest_allocatable_is_not_offered():
    made = allocator(("f", "*"), size=Resources.of(cpus=0.009, mem_mib=31, ports=[(1, 2)]))
    assert made.allocate(0.0) == []
    made = allocator(("f", "*"), size=Resources.of(mem_mib=32))
    assert len(made.allocate(0.0)) == 1


def test_a_declared_smallest_offer_is_honoured():
    made = Allocator()
    made.add_framework("f", ["*"], min_allocatable={"*": (Resources.of(cpus=10),)})
    made.add_agent("a0", BIG)
    assert made.allocate(0.0) == []
    made.add_agent("a1", BIG + BIG)
    assert winners(made) == [("f", "a1")]


def test_agents_with_gpus_are_kept_for_frameworks_that_know_gpus():
    made = Allocator()
    made.add_agent("a0", Resources.of(cpus=4, gpus=1))
    made.add_framework("plain", ["*"])
    assert made.allocate(0.0) == []
    made.add_framework("learner", ["*"], gpu_aware=True)
    assert winners(made) == [("learner", "a0")]


def test_an_inactive_agent_is_not_offered():
    made = allocator(("f", "*"))
    made.set_agent_active("a0", active=False)
    assert made.allocate(0.0) == []


def test_a_disconnected_framework_gets_nothing_and_its_refusals_are_forgotten():
    made = allocator(("f", "*"))
    made.allocate(0.0)
    made.recover("f", "*", "a0", BIG, now=0.0, refuse_s=1000.0)
    made.deactivate_framework("f")
    assert made.allocate(0.0) == []
    made.add_framework("f", ["*"])
    assert winners(made) == [("f", "a0")]


def test_an_agent_that_goes_takes_its_share_of_the_cluster_with_it():
    made = allocator(("f", "*"), ("g", "*"), agents=2)
    made.claim("f", "*", "a0", Resources.of(cpus=8))
    made.remove_agent("a0")
    assert made.shares() == {"*": 0.0}
    assert made.cluster()[0]["cpus"] == 9.0


def test_an_agent_that_grows_offers_what_it_gained():
    made = allocator(("f", "*"))
    made.claim("f", "*", "a0", Resources.of(cpus=1))
    made.update_agent("a0", BIG + Resources.of(cpus=3))
    assert made.free("a0").cpus == 11.0


def test_one_that_is_far_behind_is_served_again_in_the_same_round_until_it_has_caught_up():
    made = allocator(("ahead", "*"), ("behind", "*"), agents=9)
    for agent in ("a0", "a1", "a2"):
        made.claim("ahead", "*", agent, BIG)
    counts = [framework for framework, _ in winners(made)]
    assert counts[:3] == ["behind", "behind", "behind"]
    assert counts.count("ahead") == 2
