"""Ctrl-C in the middle of `up`: nothing of it survives `down`."""

from __future__ import annotations

import os
import signal
import subprocess

import pytest

from tests.support.road import Road, until

pytestmark = [pytest.mark.endtoend, pytest.mark.terraform, pytest.mark.slow, pytest.mark.timeout(600)]


def test_an_interrupted_up_is_undone_by_down(tmp_path):
    road = Road(tmp_path / "cut", name="cut", cidr="127.78.0.0/16")
    road.start_local()
    try:
        with (tmp_path / "up.log").open("w") as log:
            process = road.popen("up", "--yes", stdout=log, stderr=subprocess.STDOUT)
        until("terraform has made instances", lambda: instances(road), 200)
        os.kill(process.pid, signal.SIGINT)
        assert process.wait(120) == 130, (tmp_path / "up.log").read_text()[-3000:]
        assert instances(road), "the interruption came before anything was made: this proves nothing"
        road.mesaform("down", "--yes", "--keep-local", timeout_s=300)
        assert road.left_in_ec2() == {}
        assert road.processes() == []
    finally:
        road.end()


def instances(road):
    mine = [
        {"Name": "tag:mesaform:cluster", "Values": [road.name]},
        {"Name": "tag:mesaform:role", "Values": ["master", "agent"]},
        {"Name": "instance-state-name", "Values": ["pending", "running"]},
    ]
    return road.boto("ec2").describe_instances(Filters=mine)["Reservations"]
