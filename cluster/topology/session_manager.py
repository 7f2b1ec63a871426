"""Session Manager of AWS, for `debug: ssm`: the agent's unit, its rights and its endpoints. Pure.

The rights are the least that AWS documents for the agent ("Add Session Manager permissions to an
existing IAM role", Systems Manager user guide).
"""

from __future__ import annotations

from collections.abc import Sequence

UNIT = "amazon-ssm-agent.service"
"""The unit of the agent, which images have disabled."""

ENDPOINT_SERVICES: Sequence[str] = ("ssm", "ssmmessages", "ec2messages")
"""Services whose interface endpoints a subnet without a way out needs."""

ACTIONS: Sequence[str] = (
    "ssm:UpdateInstanceInformation",
    "ssmmessages:CreateControlChannel",
    "ssmmessages:CreateDataChannel",
    "ssmmessages:OpenControlChannel",
    "ssmmessages:OpenDataChannel",
)
