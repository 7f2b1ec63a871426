"""`mesaform init` and `mesaform validate`."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from mesaform.aws.pricing.prices import BOOK_PRICES
from mesaform.cli import init, validate
from mesaform.cli.validate import summary
from mesaform.common.errors import BadInput
from mesaform.config.parser import parse
from mesaform.config.sample import sample
from mesaform.config.schema import ClusterSpec, Network
from tests.unit.config.commands import program


def test_the_sample_says_every_default_as_it_is():
    assert parse(sample("demo", "local")) == ClusterSpec(name="demo")


def test_the_sample_for_aws_is_right_once_operators_are_named():
    expected = ClusterSpec(
        name="demo", target="aws", network=Network(operator_cidrs=("203.0.113.7/32",))
    )
    assert parse(sample("demo", "aws", ["203.0.113.7/32"])) == expected


def test_the_sample_for_aws_lets_nobody_in_unasked():
    with pytest.raises(BadInput, match="must be given on aws"):
        parse(sample("demo", "aws"))


def test_the_sample_has_every_field_with_a_comment():
    text = sample("demo", "local")
    for field in (
        "interval_s",
        "min",
        "spot_share",
        "max_usd_per_hour",
        "zones",
        "open_to_the_world",
    ):
        line = next(index for index, line in enumerate(text.splitlines()) if f"{field}:" in line)
        assert text.splitlines()[line - 1].strip().startswith("# ")
    assert "None" not in text


def test_init_writes_a_file_that_validate_accepts(tmp_path):
    app, file = program(init, validate), str(tmp_path / "c.yaml")
    assert CliRunner().invoke(app, ["init", "--name", "west", "--file", file]).exit_code == 0
    checked = CliRunner().invoke(app, ["validate", "--file", file, "--json"])
    assert checked.exit_code == 0
    facts = json.loads(checked.stdout)
    assert facts["name"] == "west"
    assert [master["address"] for master in facts["masters"]] == [
        "127.42.0.10",
        "127.42.32.10",
        "127.42.64.10",
    ]


def test_init_overwrites_a_file_only_with_force(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("mine")
    with pytest.raises(BadInput, match="exists already"):
        init.write(file, "a", "local")
    assert file.read_text() == "mine"
    init.write(file, "a", "local", force=True)
    assert parse(file.read_text()).name == "a"


def test_init_refuses_a_name_that_no_cluster_can_have(tmp_path):
    with pytest.raises(BadInput, match="is not a name"):
        init.write(tmp_path / "c.yaml", "No Name", "local")
    assert not (tmp_path / "c.yaml").exists()


def test_validate_says_what_the_cluster_costs_to_start_with():
    facts = summary(ClusterSpec(name="a"), BOOK_PRICES)
    parts = {item["kind"]: item["usd_per_hour"] for item in facts["cost"]["items"]}
    assert parts["instances"] == pytest.approx(3 * 0.0416 + 2 * 0.096)
    assert parts["disks"] == pytest.approx((3 * (20 + 10) + 2 * 40) * 0.08 / 730)
    assert parts["public IPv4"] == pytest.approx(5 * 0.005)
    assert facts["usd_per_hour"] == pytest.approx(sum(parts.values()), abs=1e-6)


def test_a_price_that_nobody_knows_is_none_and_makes_the_sum_none():
    facts = summary(parse("name: a\nagents: [{types: [zz9.large]}]\n"), BOOK_PRICES)
    assert facts["pools"][0]["usd_per_hour"] is None
    assert facts["usd_per_hour"] is None


def test_validate_prints_a_table_for_people(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("name: a\n")
    shown = CliRunner().invoke(program(init, validate), ["validate", "--file", str(file)])
    assert "127.42.0.10 in us-east-1a" in shown.stdout
    assert "per hour" in shown.stdout


def test_a_name_that_collides_with_the_bundles_prefix_is_refused():
    with pytest.raises(BadInput, match="bake is reserved"):
        parse("name: bake\n", "cluster.yaml")
