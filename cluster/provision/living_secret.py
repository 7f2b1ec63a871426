"""The cluster's secret, as the user data of its living masters has it."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import suppress

import msgspec

from mesaform.aws.client import client
from mesaform.aws.resources.kind import call
from mesaform.common.errors import CloudError
from mesaform.provision.ownership import AccountView
from mesaform.topology.names import Tag
from mesaform.topology.user_data import parse_node_document


def read_living_secret(view: AccountView, deployment_id: str, region: str) -> str:
    """The secret of a deployment; empty if no master lives or its user data cannot be read.

    A new secret would replace every master at the next `mesaform up`.
    """
    return next(_secrets(view, deployment_id, region), "")


def _secrets(view: AccountView, deployment_id: str, region: str) -> Iterator[str]:
    ec2 = client("ec2", region)
    for machine in view.machines:
        is_own = machine.tags.get(Tag.DEPLOYMENT) == deployment_id
        if not is_own or machine.tags.get(Tag.ROLE) != "master":
            continue
        with suppress(CloudError, ValueError, msgspec.MsgspecError):
            identity = machine.instance_id
            answer = call(
                ec2,
                "describe_instance_attribute",
                identity,
                InstanceId=identity,
                Attribute="userData",
            )
            text = base64.b64decode(answer["UserData"].get("Value", ""))
            if secret := parse_node_document(text).secret:
                yield secret
