"""When masters serve: the condition between two masters of a rolling change."""

from __future__ import annotations

from typing import Any

import pytest

from mesaform.aws.pricing.prices import Prices
from mesaform.status.ready import missing_to_serve
from mesaform.status.view import join
from tests.unit.cli.test_view import MASTERS, machine, spec, whole

MODES = dict(zip(MASTERS, ("follower", "leader", "follower"), strict=True))


def lacks(count: int = 3, **changes: Any) -> list[str]:
    sources = whole(**{"zookeeper_modes": MODES, "services_up": frozenset(MASTERS), **changes})
    status = join(spec(), sources, Prices("us-east-1"))
    return [item.what for item in missing_to_serve(status, sources, count, spec())]


def test_three_masters_with_a_leader_and_two_followers_serve():
    assert lacks() == []


def test_agents_and_the_autoscaler_do_not_matter():
    assert lacks(agents={"agents": []}, heartbeat=None) == []


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"zookeeper_modes": {MASTERS[0]: "follower", MASTERS[1]: "leader"}},
            f"the ZooKeeper of master {MASTERS[2]} serves no requests",
        ),
        (
            {"zookeeper_modes": dict.fromkeys(MASTERS, "follower")},
            "of the ZooKeepers not exactly one leads (3 follower)",
        ),
        (
            {"zookeeper_modes": dict(zip(MASTERS, ("leader", "leader", "follower"), strict=True))},
            "of the ZooKeepers not exactly one leads (1 follower, 2 leader)",
        ),
        ({"masters_up": frozenset(MASTERS[:2])}, f"master {MASTERS[2]} does not answer on 5050"),
        ({"services_up": frozenset(MASTERS[:2])}, f"master {MASTERS[2]} does not answer on 8080"),
        ({"leader": None}, "no master is elected leader"),
        (
            {"agents": None},
            "the leading master does not list its agents: it has not read its registry",
        ),
        (
            {"machines": [machine(f"i-{at}", "master", at) for at in MASTERS[:2]]},
            "1 of 3 masters have no machine",
        ),
    ],
)
def test_each_missing_part_is_named(changes: dict[str, Any], expected: str):
    assert expected in lacks(**changes)


def test_a_majority_serves_while_the_third_has_no_machine():
    two = [machine(f"i-{at}", "master", at) for at in MASTERS[:2]]
    modes = {MASTERS[0]: "follower", MASTERS[1]: "leader"}
    assert lacks(2, machines=two, zookeeper_modes=modes) == []
