"""The dead man's lease in cluster.yaml: its bounds, and who gets it in their user data."""

from __future__ import annotations

import pytest

from mesaform.common.errors import BadInput
from mesaform.config.parser import parse
from mesaform.topology.launch_documents import Membership, node_document
from mesaform.topology.user_data import LeaseTerms, parse_node_document

POOLS = """\
agents:
  - name: default
  - {name: kept, attributes: {"mesaform/protect": "true"}}
"""


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ("lease_s: 59", "59 is less than 60"),
        (
            "{lease_s: 500, interval_s: 200}",
            "500 is less than 1000, which a change of leader or 5 passes may take; 0 turns it off",
        ),
        ("lease_s: -1", "must be at least 0"),
        ("lease_s: 604801", "must be at most 604800"),
    ],
)
def test_a_lease_shorter_than_a_change_of_leader_or_out_of_bounds_is_refused_with_its_line(
    settings, why
):
    with pytest.raises(BadInput, match=why) as refused:
        parse(
            f"name: a\nautoscaler:\n  {settings}\n"
            if "{" not in settings
            else f"name: a\nautoscaler: {settings}\n"
        )
    assert "lease_s" in str(refused.value)


@pytest.mark.parametrize("settings", ["lease_s: 0", "lease_s: 60", "lease_s: 604800"])
def test_the_bounds_themselves_and_off_are_fine(settings):
    assert parse(f"name: a\nautoscaler:\n  {settings}\n").autoscaler.lease_s == float(
        settings.split()[1]
    )


def test_only_launched_agents_of_unprotected_pools_have_a_lease():
    spec = parse("name: a\nautoscaler: {idle_after_s: 33}\n" + POOLS)

    def lease(role, pool="", **more):
        return parse_node_document(node_document(spec, role, "r", Membership(pool, **more))).lease

    assert lease("agent", "default", has_lease=True) == LeaseTerms(1800, 33)
    assert lease("agent", "kept", has_lease=True) is None
    assert lease("agent", "default") is None
    assert lease("master") is None
    assert lease("master", has_lease=True) is None


def test_the_user_data_of_machines_without_a_lease_is_as_it_was_before_there_were_leases():
    spec = parse("name: a\n")
    assert "lease" not in node_document(spec, "agent", "r", Membership("default"))
