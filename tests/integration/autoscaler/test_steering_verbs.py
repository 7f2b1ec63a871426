"""`mesaform pause`, `resume`, `set`, `hint`, `drain` and `cost` as a person runs them, on moto."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from mesaform.aws.control import S3Control
from mesaform.aws.ledger import S3Ledger
from mesaform.cli import cost, drain, hint, pause, resume, why
from mesaform.cli import set as set_verb
from mesaform.cli.override_client import seconds
from mesaform.common.errors import BadInput, MesaformError
from tests.integration.autoscaler.test_verbs import file  # noqa: F401
from tests.integration.aws.conftest import REGION, bucket, cloud, moto_url  # noqa: F401

pytestmark = pytest.mark.slow


def run(*arguments: str) -> str:
    app = typer.Typer()
    for verb in (pause, resume, set_verb, hint, drain, cost, why):
        verb.register(app)
    result = CliRunner().invoke(app, list(arguments), env={"COLUMNS": "180"})
    if isinstance(result.exception, MesaformError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def in_force(bucket: str) -> list[tuple[Any, ...]]:
    return [
        (order.kind, order.pool, order.bound, order.count)
        for order in S3Control(bucket, "toy", REGION).overrides()
    ]


def test_orders_are_given_replaced_withdrawn_and_listed(file: str, bucket: str):
    assert "deploying" in run("pause", "-f", file, "--for", "30m", "--reason", "deploying")
    run("pause", "-f", file, "--for", "1h")
    run("hint", "-f", file, "--cpus", "2", "--mem", "4096", "--count", "10")
    run("set", "min", "2", "-f", file, "--for", "2h")
    run("set", "min", "3", "-f", file, "--for", "2h")
    assert in_force(bucket) == [
        ("pause", "", "", 0),
        ("hint", "", "", 10),
        ("bound", "default", "min", 3),
    ]
    assert "ended: paused" in run("resume", "-f", file)
    assert "No pause was in force" in run("resume", "-f", file)
    run("resume", "--all", "-f", file)
    assert in_force(bucket) == []
    report = json.loads(run("why", "-f", file, "--json"))["decisions"]
    assert [row["override"] for row in report][:3] == ["pause", "pause", "hint"]
    assert all(row["by"] for row in report)
    assert "deploying" in run("why", "-f", file)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("set", "min", "9"), "above max"),
        (("set", "max", "2", "--pool", "defualt"), "no pool"),
        (("hint", "--cpus", "1", "--mem", "64", "--pool", "other"), "no pool"),
        (("pause", "--for", "tomorrow"), "not a length of time"),
        (("drain", "i-nothing"), "no machine"),
    ],
)
def test_an_order_that_cannot_come_true_is_refused_and_nothing_is_written(
    arguments, complaint, file: str, bucket: str
):
    with pytest.raises(BadInput, match=complaint):
        run(*arguments, "-f", file)
    assert in_force(bucket) == []


def test_lengths_of_time():
    assert (seconds("90s"), seconds("30m"), seconds("1h30m"), seconds("1d")) == (
        90,
        1800,
        5400,
        86400,
    )
    for wrong in ("", "0m", "40d", "5", "-3m"):
        with pytest.raises(BadInput):
            seconds(wrong)


def test_cost_adds_up_what_the_ledger_has(file: str, bucket: str):
    ledger, now = S3Ledger(bucket, "toy", REGION), time.time()
    row = {"kind": "machine_started", "usd_per_hour": 1.0, "pool": "default", "role": "agent"}
    for number, hours in enumerate((3.0, 1.0)):
        at = now - hours * 3600
        ledger.append({**row, "at": at, "launched_at": at, "instance_id": f"i-{number}"})
    shown = run("cost", "-f", file, "--since", "6h")
    # Four machine-hours at $1, and an estimate of the cluster's requests and traffic.
    assert re.search(r"default +2 +4\.0\d{3} ", shown), shown
    assert " for 2 machines, 4.0 machine-hours" in shown
    assert "█" in shown
    answer = run("cost", "-f", file, "--since", "2h", "--by", "role", "--json")
    actual = json.loads(answer[answer.index("{") :])  # moto prints to the same output
    assert actual["usd"] == pytest.approx(3.0, abs=0.05)
    assert actual["shares"][0]["name"] == "(not known)"
    page = Path(file).with_name("bill.html")
    run("cost", "-f", file, "--since", "6h", "--html", str(page))
    assert "<svg" in page.read_text()
