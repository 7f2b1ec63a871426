"""Ctrl-C during `up` and during `down`, then `down` again: listings prove that nothing is left."""

from __future__ import annotations

import os
import signal
import subprocess

import pytest

from tests.support.cluster_harness import ClusterHarness, until

pytestmark = [
    pytest.mark.endtoend,
    pytest.mark.terraform,
    pytest.mark.slow,
    pytest.mark.timeout(900),
]


def test_an_interrupted_up_and_an_interrupted_down_are_undone_by_down(tmp_path):
    road = ClusterHarness(tmp_path / "cut", name="cut", cidr="127.78.0.0/16")
    road.start_local()
    try:
        up = start(road, tmp_path / "up.log", "up", "--yes")
        until("terraform has made instances", lambda: instances(road), 300)
        os.killpg(up.pid, signal.SIGINT)  # as a terminal does: to everybody in the foreground
        assert up.wait(200) == 130, end_of(tmp_path / "up.log")
        assert "Carry on: mesaform up" in end_of(tmp_path / "up.log")
        assert instances(road), (
            "the interruption came before anything was made: this proves nothing"
        )

        down = start(road, tmp_path / "down.log", "down", "--yes", "--keep-local")
        until("terraform destroys", lambda: "Destroy agents" in end_of(tmp_path / "down.log"), 200)
        os.kill(down.pid, signal.SIGINT)
        assert down.wait(200) == 130, end_of(tmp_path / "down.log")
        assert road.left_in_ec2(), (
            "the interruption came after everything was gone: this proves nothing"
        )

        road.mesaform("down", "--yes", "--keep-local", timeout_s=400)
        assert road.left_in_ec2() == {}
        assert road.processes() == []
    finally:
        road.end()


def start(road, log, *arguments):
    with log.open("w") as writing:
        return road.popen(*arguments, stdout=writing, stderr=subprocess.STDOUT)


def end_of(log):
    return log.read_text()[-3000:]


def instances(road):
    mine = [
        {"Name": "tag:mesaform:cluster", "Values": [road.name]},
        {"Name": "tag:mesaform:role", "Values": ["master", "agent"]},
        {"Name": "instance-state-name", "Values": ["pending", "running"]},
    ]
    return road.boto("ec2").describe_instances(Filters=mine)["Reservations"]
