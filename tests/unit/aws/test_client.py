"""What AWS says becomes one of our errors, by code and status."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError

from mesaform.aws import client
from mesaform.aws.fleet import _result
from mesaform.aws.ports import LaunchRequest
from mesaform.common.errors import InsufficientCapacity, NotFound, Permanent, Retryable
from tests.unit.autoscaler.builders import a_snapshot


def an_error(code: str, status: int = 400) -> ClientError:
    return ClientError(
        {
            "Error": {"Code": code, "Message": "said the cloud"},
            "ResponseMetadata": {"HTTPStatusCode": status},
        },
        "Any",
    )


@pytest.mark.parametrize(
    ("code", "status", "kind"),
    [
        ("RequestLimitExceeded", 503, Retryable),
        ("SlowDown", 503, Retryable),
        ("InternalError", 500, Retryable),
        ("SomethingNew", 502, Retryable),
        ("InvalidInstanceID.NotFound", 400, NotFound),
        ("InvalidLaunchTemplateName.NotFoundException", 400, NotFound),
        ("NoSuchKey", 404, NotFound),
        ("InsufficientInstanceCapacity", 500, InsufficientCapacity),
        ("UnauthorizedOperation", 403, Permanent),
        ("InvalidParameterValue", 400, Permanent),
    ],
)
def test_a_code_is_translated_once(code: str, status: int, kind: type[Exception]):
    with pytest.raises(kind) as caught, client.translated("ec2 Any"):
        raise an_error(code, status)
    assert type(caught.value) is kind
    assert caught.value.where == "ec2 Any"


def test_no_answer_at_all_may_be_tried_again():
    with pytest.raises(Retryable), client.translated("ec2 Any"):
        raise EndpointConnectionError(endpoint_url="http://127.0.0.1:1")


def test_missing_credentials_say_what_to_do():
    with pytest.raises(Permanent, match="AWS_PROFILE"), client.translated("ec2 Any"):
        raise NoCredentialsError


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
    result = _result(
        an_answer("InsufficientInstanceCapacity", bought=1),
        a_request(),
        {"subnet-a": "us-east-1a"},
        "here",
    )
    assert [machine.instance_id for machine in result.machines] == ["i-0"]
    assert result.without_capacity == ("m5.large/us-east-1a/on-demand",)


def test_a_launch_without_any_capacity_is_an_answer():
    result = _result(
        an_answer("InsufficientInstanceCapacity", "UnfulfillableCapacity"),
        a_request(),
        {"subnet-a": "us-east-1a"},
        "here",
    )
    assert (result.machines, result.without_capacity) == ((), ("m5.large/us-east-1a/on-demand",))


def test_a_launch_that_was_refused_for_another_reason_is_an_error():
    with pytest.raises(Permanent, match="InvalidLaunchTemplate"):
        _result(
            an_answer("InvalidLaunchTemplateId.Malformed"),
            a_request(),
            {"subnet-a": "us-east-1a"},
            "here",
        )
