"""A folder has one daemon: it starts once, is found again, and stops completely."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest
from typer.testing import CliRunner

from harness.ports import free_port
from mesaform.cli import local
from mesaform.common.errors import Busy, MissingPrerequisite
from mesaform.localcloud import daemon
from tests.integration.localcloud.conftest import Cloud

pytestmark = pytest.mark.slow
cli = CliRunner()


def test_a_second_start_finds_the_first(cloud: Cloud) -> None:
    again = daemon.start(cloud.root)
    assert (again.url, again.pid, again.started) == (cloud.url, cloud.pid, False)


def test_a_second_start_on_another_port_is_busy(cloud: Cloud) -> None:
    with pytest.raises(Busy, match="already listens on"):
        daemon.start(cloud.root, port=1)


def test_a_taken_port_is_named_and_leaves_nothing_behind(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(Busy, match=f"127.0.0.1:{port}.*\n.*--port"):
            daemon.start(tmp_path, port=port)
    assert daemon.find(tmp_path) is None
    assert not (tmp_path / "pid").exists()


def test_a_stale_pid_file_is_not_taken_for_a_daemon(tmp_path: Path) -> None:
    (tmp_path / "pid").write_text(f"{os.getpid()}\n")
    (tmp_path / "lock").touch()
    (tmp_path / "endpoint.json").write_text(
        json.dumps({"url": "http://127.0.0.1:1", "pid": os.getpid()})
    )
    assert daemon.find(tmp_path) is None
    assert daemon.status(tmp_path)["running"] is False
    assert daemon.stop(tmp_path) is False
    assert not (tmp_path / "pid").exists()


def test_the_endpoint_file_says_where_it_is(cloud: Cloud) -> None:
    assert json.loads((cloud.root / "endpoint.json").read_text()) == {
        "schema": "localcloud.endpoint/1",
        "url": cloud.url,
        "pid": cloud.pid,
    }


def test_status_lists_machines_with_their_process(cloud: Cloud) -> None:
    instance = cloud.launch(cloud.image())
    facts = cloud.node_facts(instance)
    cloud.wait_state(instance, "running")
    result = cli.invoke(local.local, ["status", "--state", str(cloud.root), "--json"])
    listed = next(
        item for item in json.loads(result.stdout)["instances"] if item["instance_id"] == instance
    )
    assert (listed["state"], listed["pid"], listed["image_id"]) == (
        "running",
        facts["pid"],
        cloud.image(),
    )
    assert listed["address"] == cloud.describe(instance)["PrivateIpAddress"]
    assert (
        instance
        in cli.invoke(
            local.local, ["status", "--state", str(cloud.root)], env={"COLUMNS": "200"}
        ).stdout
    )


def test_env_prints_lines_for_a_shell(cloud: Cloud) -> None:
    result = cli.invoke(local.local, ["env", "--state", str(cloud.root), "--region", "eu-west-1"])
    assert f"export AWS_ENDPOINT_URL={cloud.url}\n" in result.stdout
    assert "export AWS_REGION=eu-west-1\n" in result.stdout


def test_a_command_that_needs_the_local_cloud_says_how_to_start_it(tmp_path: Path) -> None:
    result = cli.invoke(local.local, ["env", "--state", str(tmp_path)])
    assert isinstance(result.exception, MissingPrerequisite)
    assert "mesaform local start" in str(result.exception)


def test_faults_are_added_listed_and_cleared_from_the_command_line(cloud: Cloud) -> None:
    state = ["--state", str(cloud.root)]
    name = cli.invoke(
        local.local, ["fault", "capacity", "--type", "m5.large", "--count", "2", *state]
    ).stdout.strip()
    listed = json.loads(cli.invoke(local.local, ["fault", "list", "--json", *state]).stdout)
    assert [(item["id"], item["kind"], item["type"], item["left"]) for item in listed] == [
        (name, "capacity", "m5.large", 2)
    ]
    assert cli.invoke(local.local, ["fault", "clear", name, *state]).stdout == "cleared 1\n"
    assert json.loads(cli.invoke(local.local, ["fault", "list", "--json", *state]).stdout) == []


def test_a_start_without_a_port_listens_where_the_last_one_did(tmp_path: Path) -> None:
    """Machines that outlived a killed daemon know no other address."""
    first = daemon.start(tmp_path, port=free_port("127.0.0.1"))
    daemon.stop(tmp_path)
    again = daemon.start(tmp_path)
    daemon.stop(tmp_path)
    assert again.url == first.url


def test_a_damaged_endpoint_file_is_kept_and_written_again(cloud: Cloud) -> None:
    path = cloud.root / "endpoint.json"
    for damaged in (b"", b"{", b'{"schema":"localcloud.endpoint/9","url":"","pid":1}'):
        path.write_bytes(damaged)
        running = daemon.start(cloud.root)
        assert (running.url, running.pid, running.started) == (cloud.url, cloud.pid, False)
        kept = sorted(cloud.root.glob("endpoint.json.set-aside*"))
        assert damaged in [item.read_bytes() for item in kept]
    assert any("endpoint.json.set-aside" in text for text in daemon.status(cloud.root)["set_aside"])


def test_an_endpoint_file_without_a_schema_is_read(cloud: Cloud) -> None:
    document = {"url": cloud.url, "pid": cloud.pid}
    (cloud.root / "endpoint.json").write_text(json.dumps(document))
    assert daemon.find(cloud.root) == daemon.Running(cloud.url, cloud.pid)
