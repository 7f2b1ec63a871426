"""Types that boot no image, and architectures that do not fit together, are refused."""

from __future__ import annotations

import pytest

from mesaform.common.errors import BadInput
from mesaform.config.parser import parse
from mesaform.topology.launch_documents import Membership, node_document
from mesaform.topology.user_data import parse_node_document

AWS = "target: aws\nnetwork: {operator_cidrs: [203.0.113.7/32]}\n"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("agents: [{types: [m5.metal]}]", r"agents\[0\]\.types.*m5\.metal.*bare metal"),
        ("agents: [{types: [mac2.metal]}]", "mac2.metal.*macOS"),
        ("agents: [{types: [hpc7g.4xlarge]}]", "hpc7g.4xlarge.*HPC"),
        ("masters: {type: c5.metal}", r"masters\.type.*c5\.metal.*bare metal"),
        ("agents: [{types: [m6g.large]}]", r"tasks\.architecture.*set tasks\.architecture: arm64"),
        ("agents: [{attributes: {arch: x}}]", "arch is set by the machine itself"),
        ("bake: {subnet: vpc-1}", "not a subnet's id"),
        (
            AWS + "engine: mesos\nmasters: {type: t4g.medium}",
            r"masters\.type.*t4g\.medium is arm64.*engine: embedded",
        ),
        (
            AWS + "engine: mesos\nagents: [{types: [m5.large, m6g.large]}]",
            r"agents\[0\]\.types.*m6g\.large is arm64",
        ),
    ],
)
def test_what_cannot_boot_is_refused_with_a_reason(text: str, problem: str) -> None:
    with pytest.raises(BadInput, match=problem):
        parse(f"name: a\n{text}\n")


def test_a_cluster_knows_of_which_architectures_it_needs_images() -> None:
    spec = parse("name: a\nmasters: {type: t4g.medium}\nagents: [{types: [m5.large]}]\n")
    assert spec.architectures == ("x86_64", "arm64")
    assert parse("name: a\n").architectures == ("x86_64",)


def test_only_agents_of_the_other_architecture_require_a_pin() -> None:
    spec = parse(
        "name: a\nagents: [{types: [m5.large, m6g.large]}, {name: b, types: [m6g.large]}]\n"
    )

    def attributes(pool: str, architecture: str) -> dict[str, str]:
        member = Membership(pool, architecture)  # type: ignore[arg-type]
        return parse_node_document(node_document(spec, "agent", "r", member)).attributes

    assert attributes("default", "x86_64") == {}
    assert attributes("default", "arm64") == {"requires_pin": "arch"}
    assert attributes("b", "arm64") == {"requires_pin": "pool"}
