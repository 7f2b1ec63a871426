"""The answer of CreateFleet becomes a `LaunchResult`."""

from __future__ import annotations

from typing import Any

import pytest

from mesaform.aws.create_fleet import launch_result
from mesaform.aws.ports import LaunchRequest
from mesaform.common.errors import Permanent
from tests.unit.autoscaler.builders import a_snapshot


def a_request() -> LaunchRequest:
    offered = tuple(o for o in a_snapshot().offerings["default"] if o.capacity == "on-demand")
    return LaunchRequest("toy", "default", 2, offered, "ms-1")


def an_answer(*errors: str, bought: int = 0) -> dict[str, Any]:
    override = {
        "LaunchTemplateAndOverrides": {
            "Overrides": {"InstanceType": "m5.large", "SubnetId": "subnet-a"}
        }
    }
    machines = [
        {
            **override,
            "Lifecycle": "on-demand",
            "InstanceType": "m5.large",
            "InstanceIds": [f"i-{n}" for n in range(bought)],
        }
    ]
    return {
        "Instances": machines if bought else [],
        "Errors": [
            {**override, "Lifecycle": "on-demand", "ErrorCode": code, "ErrorMessage": "no"}
            for code in errors
        ],
    }


def test_a_launch_that_was_half_done_keeps_its_machines_and_names_what_had_none():
    result = launch_result(
        an_answer("InsufficientInstanceCapacity", bought=1),
        a_request(),
        {"subnet-a": "us-east-1a"},
        "here",
    )
    assert [machine.instance_id for machine in result.machines] == ["i-0"]
    assert result.without_capacity == ("m5.large/us-east-1a/on-demand",)


def test_a_launch_without_any_capacity_is_an_answer():
    result = launch_result(
        an_answer("InsufficientInstanceCapacity", "UnfulfillableCapacity"),
        a_request(),
        {"subnet-a": "us-east-1a"},
        "here",
    )
    assert (result.machines, result.without_capacity) == ((), ("m5.large/us-east-1a/on-demand",))


def test_a_launch_that_was_refused_for_another_reason_is_an_error():
    with pytest.raises(Permanent, match="InvalidLaunchTemplate"):
        launch_result(
            an_answer("InvalidLaunchTemplateId.Malformed"),
            a_request(),
            {"subnet-a": "us-east-1a"},
            "here",
        )
