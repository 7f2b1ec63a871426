"""`mesaform simulate --history`: the cluster's last hours from its ledger, and their real cost."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from mesaform.autoscaler.accounting.resource_usage import Task
from mesaform.autoscaler.accounting.task_history import Past
from mesaform.autoscaler.model.shape import make
from mesaform.aws.ledger import S3Ledger
from mesaform.cli import cost, simulate
from mesaform.common.errors import BadInput
from tests.integration.autoscaler.test_verbs import file  # noqa: F401 - fixture
from tests.integration.aws.conftest import REGION, bucket, cloud, moto_url  # noqa: F401

pytestmark = pytest.mark.slow
HOUR = 3600.0


def run(*arguments: str) -> str:
    app = typer.Typer()
    for verb in (simulate, cost):
        verb.register(app)
    result = CliRunner().invoke(app, list(arguments), env={"COLUMNS": "180"})
    assert result.exit_code == 0, (result.output, result.exception)
    return result.stdout


def an_hour_of_work(ledger: S3Ledger, now: float) -> None:
    """Four tasks of a cpu for an hour on two machines of their own."""
    past, tasks = (
        Past(),
        [Task(f"web.{n}", "S-1", "/web", "*", make(1, 512), now - HOUR) for n in range(4)],
    )
    rows = past.absorb({}, (), (), now - HOUR - 60)
    rows += past.absorb({task.task_id: task for task in tasks}, (), (), now - HOUR + 60)
    rows += past.absorb({}, (), (), now - 1) + past.close(now - 1)
    kind = {
        "instance_type": "m5.large",
        "zone": "us-east-1a",
        "capacity": "on-demand",
        "usd_per_hour": 0.096,
        "pool": "default",
    }
    for name in ("i-1", "i-2"):
        row = {
            "kind": "machine_started",
            "at": now - HOUR,
            "launched_at": now - HOUR,
            "role": "agent",
            "instance_id": name,
            **kind,
        }
        rows.append(row)
        rows.append(
            {
                **row,
                "kind": "machine_stopped",
                "at": now - 1,
                "boot_s": 7.0,
                "managed_by": "autoscaler",
                "idle_s": 0.0,
            }
        )
    rows.append(
        {
            "kind": "machine_started",
            "at": now - HOUR,
            "role": "master",
            "instance_id": "i-m",
            **kind,
            "launched_at": now - HOUR,
        }
    )
    ledger.append_many(rows)


def test_the_clusters_own_policy_runs_its_own_past_and_what_it_cost_stands_beside(
    file: str, bucket: str
):
    now = time.time()
    an_hour_of_work(S3Ledger(bucket, "toy", REGION), now)
    actual = json.loads(run("simulate", "--history", "2h", "-f", file, "--json"))
    assert actual["trace"]["tasks"] == 4
    assert actual["settings"]["boot_s"] == 7.0
    assert actual["policies"][0]["name"] == "toy"
    assert actual["paid"]["usd"] == pytest.approx(2 * 0.096, abs=2e-3)
    shown = run("simulate", "--history", "2h", "-f", file)
    assert "agents really cost $0.19" in " ".join(shown.split())


def test_a_policy_file_takes_the_place_of_the_clusters_own(file: str, bucket: str, tmp_path: Path):
    an_hour_of_work(S3Ledger(bucket, "toy", REGION), time.time())
    (tmp_path / "large.yaml").write_text("agents: [{types: [m5.2xlarge]}]\n")
    answer = run(
        "simulate",
        "--history",
        "2h",
        "-f",
        file,
        "--policy",
        str(tmp_path / "large.yaml"),
        "--boot",
        "30s",
        "--json",
    )
    actual = json.loads(answer)
    assert (actual["policies"][0]["name"], actual["settings"]["boot_s"]) == ("large", 30.0)
    assert actual["policies"][0]["machines_most"] == 1


def test_a_cluster_without_a_history_is_an_error(file: str, bucket: str):
    from mesaform.cli.simulate_history import read

    with pytest.raises(BadInput, match="no task in this period"):
        read(file, HOUR, "1h", own_policy=True)
