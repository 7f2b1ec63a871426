"""`ttl` in the cluster file, and the right that it gives to masters."""

from __future__ import annotations

import pytest

from mesaform.common.errors import BadInput
from mesaform.config.parser import parse
from mesaform.topology import iam

HEAD = "name: toy\ntarget: aws\n"


def network(text: str = "") -> str:
    return f"network: {{operator_cidrs: [203.0.113.0/24]{text}}}\n"


@pytest.mark.parametrize(("text", "seconds"), [("10m", 600), ("8h", 28800), ("1d12h", 129600)])
def test_a_time_to_live_is_a_duration(text, seconds):
    assert parse(f"{HEAD}ttl: {text}\n{network()}").ttl_s == seconds


def test_a_cluster_without_a_ttl_stays():
    assert parse(HEAD + network()).ttl_s is None


@pytest.mark.parametrize("text", ["9m", "32d", "8", "soon", "-1h"])
def test_other_texts_are_refused_with_their_line(text):
    with pytest.raises(BadInput, match=r":3: ttl: "):
        parse(f"{HEAD}ttl: {text}\n{network()}")


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (", mode: private", "NAT gateways"),
        (", mode: private, nat: none", "VPC endpoints"),
        (", load_balancer: {}", "a load balancer"),
    ],
)
def test_a_network_that_is_billed_without_machines_is_refused(options, what):
    with pytest.raises(BadInput, match=f"ttl: {what} would be billed on"):
        parse(f"{HEAD}ttl: 8h\n{network(options)}")


def test_only_masters_of_a_cluster_with_a_ttl_may_terminate_each_other():
    document = iam.master_document("toy", "us-east-1", "111122223333", ["m5.large"])
    ended = iam.with_end(document, "toy", "us-east-1", "111122223333")
    added = [item for item in ended["Statement"] if item not in document["Statement"]]
    assert [item["Action"] for item in added] == ["ec2:TerminateInstances"]
    assert added[0]["Condition"] == {"StringEquals": {"ec2:ResourceTag/mesaform:cluster": "toy"}}
