"""Waiting for an image, on a clock of the test's own; EC2's answers are fixed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import boto3
import pytest

from mesaform.common.errors import Permanent
from mesaform_images import ec2_images


class Clock:
    """Seconds that pass only in pauses."""

    def __init__(self) -> None:
        self.now = 0.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        assert self.now < 2 * ec2_images.IMAGE_TIMEOUT_S, "the wait has no end"


def ec2_with_image(*states: str) -> Any:
    """A client whose DescribeImages gives these states in turn, and the last one for ever."""
    ec2 = boto3.client(
        "ec2", region_name="us-east-1", aws_access_key_id="test", aws_secret_access_key="test"
    )
    remaining = list(states)

    def answer(**_: Any) -> tuple[SimpleNamespace, dict[str, Any]]:
        state = remaining.pop(0) if len(remaining) > 1 else remaining[0]
        image = {"ImageId": "ami-1", "State": state, "StateReason": {"Message": "no space"}}
        return SimpleNamespace(status_code=200), {"Images": [image]}

    events: Any = ec2.meta.events
    events.register("before-call.ec2.DescribeImages", answer)
    return ec2


def test_an_image_that_stays_pending_is_given_up_after_its_time() -> None:
    clock = Clock()
    with pytest.raises(Permanent, match="not available within 1800 s"):
        ec2_images.await_image(ec2_with_image("pending"), "ami-1", lambda: clock.now, clock.sleep)
    assert 0 <= clock.now - ec2_images.IMAGE_TIMEOUT_S < 5


def test_an_image_is_returned_as_soon_as_it_is_available() -> None:
    clock = Clock()
    ec2 = ec2_with_image("pending", "pending", "available")
    image = ec2_images.await_image(ec2, "ami-1", lambda: clock.now, clock.sleep)
    assert (image["State"], clock.now) == ("available", pytest.approx(0.3))


def test_an_image_that_failed_is_an_error_with_the_reason_of_ec2() -> None:
    clock = Clock()
    with pytest.raises(Permanent, match=r"the image is failed\. no space"):
        ec2_images.await_image(ec2_with_image("failed"), "ami-1", lambda: clock.now, clock.sleep)
