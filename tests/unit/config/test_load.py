"""A cluster file is either understood whole or refused whole, with a line for each mistake."""

from __future__ import annotations

from pathlib import Path

import pytest

from mesaform.common.errors import BadInput, Exit
from mesaform.config.parser import load, parse
from mesaform.config.schema import ClusterSpec, Network, Pool

AWS = "name: a\ntarget: aws\nnetwork: {operator_cidrs: [203.0.113.0/24]%s}\n"

MISTAKES = [
    ("nam: a\n", ["c.yaml:1: name: missing", "c.yaml:1: nam: unknown field; nearest: name"]),
    (
        "name: a\ntarget: awss\n",
        ["c.yaml:2: target: must be local or aws, not 'awss'; nearest: aws"],
    ),
    (
        "name: a\n\nagents:\n  - name: b\n    typs: [m5.large]\n",
        ["c.yaml:5: agents[0].typs: unknown field; nearest: types"],
    ),
    (
        "name: a\nagents:\n  - count: two\n",
        ["c.yaml:3: agents[0].count: must be a whole number, not 'two'"],
    ),
    (
        "name: a\nagents:\n  - count: true\n",
        ["c.yaml:3: agents[0].count: must be a whole number, not True"],
    ),
    (
        'name: a\nagents:\n  - count: "2"\n',
        ["c.yaml:3: agents[0].count: must be a whole number, not '2'"],
    ),
    ("name: a\nagents:\n  - spot_share: 1.5\n", ["agents[0].spot_share: must be at most 1"]),
    (
        "name: a\nagents:\n  - name: b\n  - name: b\n",
        ["c.yaml:4: agents[1].name: pool b is defined more than once"],
    ),
    (
        "name: a\nagents:\n  - count: 3\n    min: 1\n",
        ["c.yaml:4: agents[0].min: 1 is below count (3)"],
    ),
    ("name: a\nagents:\n  - max: 1\n", ["c.yaml:3: agents[0].max: 1 is below count (2)"]),
    (
        "name: a\nagents:\n  - types: [m5.large, m5.large]\n",
        ["agents[0].types: m5.large named more than once"],
    ),
    ("name: a\nagents:\n  - types: [big]\n", ["agents[0].types[0]: 'big' is not an instance type"]),
    (
        "name: a\nagents:\n  - types:\n      - m5.large\n      - big\n",
        ["c.yaml:5: agents[0].types[1]: 'big' is not an instance type"],
    ),
    ("name: a\nagents: []\n", ["c.yaml:2: agents: needs at least 1"]),
    (
        "name: a\nagents:\n  - attributes: {zone: x}\n",
        ["agents[0].attributes: zone is set by the machine itself"],
    ),
    (
        "name: a\nagents:\n  - attributes: {rack: 'a;b'}\n",
        ["agents[0].attributes.rack: 'a;b' is not an attribute's value"],
    ),
    (
        "name: a\nhttp: {host_names: ['mesos.example.com:8080']}\n",
        ["c.yaml:2: http.host_names[0]: 'mesos.example.com:8080' is not a host's name or address"],
    ),
    ("name: Big_Name\n", ["c.yaml:1: name: 'Big_Name' is not a name"]),
    ("name: a\nmasters: {count: 2}\n", ["c.yaml:2: masters.count: must be 1, 3 or 5, not 2"]),
    ("name: a\ncost: 5\n", ["c.yaml:2: cost: must be a mapping of fields to values, not 5"]),
    ("name: a\nautoscaler: {idle_after_s: .nan}\n", ["autoscaler.idle_after_s"]),
    ("name: a\nname: b\n", ["c.yaml:2: name: named twice, first in line 1"]),
    ("name: a\nagents: [\n", ["c.yaml:3: not YAML"]),
    (
        "name: a\nagents: !!python/object:os.system x\n",
        ["c.yaml:2: not YAML: could not determine a constructor"],
    ),
    ("just text", ["c.yaml:1: must be a mapping"]),
    ("", ["c.yaml:1: must be a mapping"]),
    (
        "name: a\nnetwork:\n  cidr: 127.42.0.0/26\n",
        ["c.yaml:3: network.cidr: 127.42.0.0/26 is too small", "take a /24 or larger"],
    ),
    (
        "name: a\nnetwork: {cidr: 127.0.0.0/8}\n",
        ["network.cidr: 127.0.0.0/8 is larger than AWS allows"],
    ),
    ("name: a\nnetwork: {cidr: 10.42.0.0/16}\n", ["10.42.0.0/16 is not inside 127.0.0.0/8"]),
    ("name: a\nnetwork: {cidr: 127.0.0.0/16}\n", ["holds 127.0.0.1, which is this host's own"]),
    (
        "name: a\nnetwork: {cidr: 127.42.1.1/16}\n",
        ["network.cidr: 127.42.1.1/16 has host bits set"],
    ),
    (
        f"name: a\nnetwork: {{zones: [{', '.join(f'us-east-1{x}' for x in 'abcde')}]}}\n",
        ["network.zones: 5 zones, must be one to 4"],
    ),
    (
        "name: a\nnetwork: {zones: [us-east-1a, us-east-1b, us-east-1b]}\n",
        ["network.zones: us-east-1b named more than once"],
    ),
    (
        "name: a\nnetwork: {zones: [us-east-1a, us-east-1b, eu-west-1a]}\n",
        ["'eu-west-1a' is not a zone of us-east-1"],
    ),
    ("name: a\ntarget: aws\n", ["network.operator_cidrs: must be given on aws"]),
    (AWS.replace("203.0.113.0/24", "0.0.0.0/0") % "", ["0.0.0.0/0 lets in everybody"]),
    (
        AWS % ", cidr: 127.42.0.0/16",
        ["127.42.0.0/16 lies in 127.0.0.0/8, which AWS takes for no VPC"],
    ),
]


@pytest.mark.parametrize(("text", "complaints"), MISTAKES, ids=lambda value: repr(value)[:40])
def test_each_mistake_is_named_with_its_line_and_field(text, complaints):
    with pytest.raises(BadInput) as caught:
        parse(text, "c.yaml")
    for complaint in complaints:
        assert complaint in str(caught.value)
    assert caught.value.exit_code == Exit.BAD_INPUT


def test_all_mistakes_are_reported_in_the_order_of_the_file():
    text = (
        "name: a\ntarget: awss\nagents:\n  - typs: 1\n    count: x\nautoscaler:\n  intervall_s: 1\n"
    )
    with pytest.raises(BadInput) as caught:
        parse(text, "c.yaml")
    lines = [int(line.split(":")[1]) for line in str(caught.value).splitlines()]
    assert lines == [2, 4, 5, 7]


def test_a_broken_yaml_is_not_evaluated_any_further():
    with pytest.raises(BadInput) as caught:
        parse("nonsense: 1\nname: a\nname: b\n", "c.yaml")
    assert "nonsense" not in str(caught.value)


def test_a_list_with_wrong_items_is_not_called_too_short():
    with pytest.raises(BadInput) as caught:
        parse("name: a\nagents: [5]\n", "c.yaml")
    assert "at least" not in str(caught.value)


def test_room_for_agents_leaves_the_addresses_that_only_masters_get():
    fitting = Pool(name="a", count=0, max=12)
    assert ClusterSpec(name="x", network=Network(cidr="127.42.0.0/25"), agents=(fitting,))
    with pytest.raises(
        ValueError, match=r"room for 12 agents beside .* max needs 13: take a /24 or larger"
    ):
        ClusterSpec(
            name="x",
            network=Network(cidr="127.42.0.0/25"),
            agents=(fitting.model_copy(update={"max": 13}),),
        )


def test_operator_networks_of_the_whole_world_need_a_switch():
    spec = parse(AWS.replace("203.0.113.0/24", "0.0.0.0/0") % ", open_to_the_world: true")
    assert spec.network.operator_cidrs == ("0.0.0.0/0",)


def test_defaults_follow_the_target():
    local, aws = parse("name: a\n"), parse(AWS % "")
    assert (local.engine, local.network.cidr, local.autoscaler.idle_after_s) == (
        "embedded",
        "127.42.0.0/16",
        20,
    )
    assert (aws.engine, aws.network.cidr, aws.autoscaler.idle_after_s) == (
        "embedded",
        "10.42.0.0/16",
        300,
    )
    assert local.network.operator_cidrs == ("127.0.0.0/8",)
    assert local.zones == ("us-east-1a", "us-east-1b", "us-east-1c")


def test_what_is_given_wins_over_the_defaults_of_the_target():
    spec = parse((AWS % "") + "engine: embedded\nautoscaler: {idle_after_s: 7}\n")
    assert (spec.engine, spec.autoscaler.idle_after_s, spec.autoscaler.boot_timeout_s) == (
        "embedded",
        7,
        600,
    )


def test_sections_left_empty_have_their_defaults():
    assert parse("name: a\nnetwork:\nmasters:\nautoscaler:\ncost:\n") == ClusterSpec(name="a")


def test_a_spec_survives_the_way_to_the_autoscaler_and_back():
    spec = parse(
        (AWS % "") + "agents: [{name: gpu, types: [p3.2xlarge], attributes: {rack: r1}}]\n"
    )
    assert ClusterSpec.model_validate_json(spec.model_dump_json()) == spec


def test_a_spec_that_the_autoscaler_cannot_read_is_refused():
    pools = tuple(
        Pool(name=f"pool-{n}", count=0, max=1, attributes={"a" * 100: "b" * 100}) for n in range(30)
    )
    with pytest.raises(ValueError, match="bytes as JSON, the autoscaler can read 8192"):
        ClusterSpec(name="x", agents=pools)


def test_a_missing_file_says_how_to_write_one(tmp_path: Path):
    with pytest.raises(BadInput, match="mesaform init"):
        load(tmp_path / "cluster.yaml")


def test_a_file_that_is_no_text_is_refused(tmp_path: Path):
    (tmp_path / "cluster.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(BadInput, match="not UTF-8"):
        load(tmp_path / "cluster.yaml")
