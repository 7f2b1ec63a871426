"""The answer of CreateFleet becomes a `LaunchResult`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from harness.autoscaler_builders import a_snapshot
from mesaform.aws.create_fleet import fleet_request, launch_result
from mesaform.aws.ports import LaunchRequest
from mesaform.common.errors import Permanent


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


def test_a_type_that_ec2_refuses_leaves_the_other_offerings_of_the_call_usable():
    zones = {"subnet-a": "us-east-1a"}
    result = launch_result(an_answer("InvalidParameterValue"), a_request(), zones, "here")
    assert (result.machines, result.without_capacity) == ((), ("m5.large/us-east-1a/on-demand",))
    alone = replace(a_request(), offerings=a_request().offerings[:1])
    with pytest.raises(Permanent, match="InvalidParameterValue"):
        launch_result(an_answer("InvalidParameterValue"), alone, zones, "here")


def test_each_architecture_has_its_template_with_the_types_that_boot_its_image():
    offered = a_request().offerings
    arm = tuple(replace(o, instance_type="m6g.large") for o in offered[:2])
    request = replace(a_request(), offerings=(*arm, *offered[:2]))
    subnets = {offering.zone: f"subnet-{offering.zone}" for offering in offered}
    configs = fleet_request(request, subnets)["LaunchTemplateConfigs"]
    assert [
        (
            config["LaunchTemplateSpecification"]["LaunchTemplateName"],
            {override["InstanceType"] for override in config["Overrides"]},
        )
        for config in configs
    ] == [("mesaform/toy/default.arm64", {"m6g.large"}), ("mesaform/toy/default", {"m5.large"})]
    priorities = [item["Priority"] for config in configs for item in config["Overrides"]]
    assert priorities == [0.0, 1.0, 2.0, 3.0], "the order of prices holds across the templates"
