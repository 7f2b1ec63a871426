"""Definitions that Marathon or Mesos refuse are refused before anything is stored."""

from __future__ import annotations

from typing import Any

import pytest

from mesaform.services.definitions import InvalidApp, parse

APP = {"id": "/web", "cmd": "true"}


@pytest.mark.parametrize(
    ("part", "path"),
    [
        ({"cpus": 0.0001, "mem": 0}, "/"),
        ({"cpus": 0, "mem": 0.0004}, "/"),
        ({"portDefinitions": [{"protocol": "icmp"}]}, "/portDefinitions(0)/protocol"),
        ({"taskKillGracePeriodSeconds": 1e12}, "/taskKillGracePeriodSeconds"),
        ({"id": "/" + "a" * 230}, "/id"),
    ],
)
def test_what_no_agent_could_run_is_refused(part: dict[str, Any], path: str):
    with pytest.raises(InvalidApp) as refused:
        parse({**APP, **part})
    assert path in refused.value.problems


@pytest.mark.parametrize(
    "part", [{"cpus": 0.001, "mem": 0}, {"portDefinitions": [{"protocol": "udp,tcp"}]}]
)
def test_the_least_that_runs_is_accepted(part: dict[str, Any]):
    assert parse({**APP, **part}).id == "/web"
