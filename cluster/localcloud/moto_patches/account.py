"""What EC2 and IAM say about the account: regions, zones, offerings, the default key, simulations.

Faults change the answers, as they differ between accounts of AWS.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import TypeVar

from moto.core.responses import ActionResult
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.responses import EC2Response
from moto.ec2.responses.availability_zones_and_regions import AvailabilityZonesAndRegions
from moto.ec2.responses.instances import InstanceResponse
from moto.iam.exceptions import NotFoundException
from moto.iam.models import SERVICE_NAME_CONVERSION
from moto.iam.responses import IamResponse

from mesaform.common.json_types import JsonObject, as_object
from mesaform.localcloud import faults
from mesaform.localcloud.moto_patches.moto_types import (
    Ec2Backend,
    Ec2Response,
    MotoObject,
    Parameters,
)
from mesaform.localcloud.policy_evaluation import EXPLICIT_DENY, Request, decide

OPERATOR = "user/moto"
"""The end of the ARN that STS gives for the operator's key, who may do everything."""

ALL = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
F = TypeVar("F")
ANYWHERE = "0.0.0.0/0"
_moto_zones = AvailabilityZonesAndRegions.describe_availability_zones
_moto_offerings = InstanceResponse.describe_instance_type_offerings


class AccountSettings:
    """Where answers ask for the faults in force; set by the endpoint's composition."""

    faults: faults.FaultRegistry = faults.FaultRegistry()
    now: Callable[[], float] = staticmethod(lambda: 0.0)

    @classmethod
    def get(cls, kind: type[F]) -> list[F]:
        """The faults of a kind that are in force."""
        return cls.faults.settings(kind, cls.now())


def give_default_gateway(backend: Ec2Backend) -> None:
    """Give the default VPC its internet gateway and default route, which moto leaves out."""
    vpc = backend.default_vpc
    gateway = backend.create_internet_gateway()
    backend.attach_internet_gateway(gateway.id, vpc.id)
    for table in backend.route_tables.values():
        if table.vpc_id == vpc.id and table.main_association_id is not None:
            backend.create_route(table.id, ANYWHERE, gateway_id=gateway.id)


def _regions(self: Ec2Response) -> ActionResult:
    self.error_on_dryrun()
    closed = {item.region for item in AccountSettings.get(faults.RegionClosed)}
    names = self._get_param("RegionNames", []) or self._filters_from_querystring().get(
        "region-name", []
    )
    listed = [
        {
            "RegionName": region.name,
            "Endpoint": region.endpoint,
            "OptInStatus": "not-opted-in" if region.name in closed else region.opt_in_status,
        }
        for region in self.ec2_backend.describe_regions(names)
    ]
    shows_all = self._get_param("AllRegions", False)
    return ActionResult(
        {"Regions": [item for item in listed if shows_all or item["RegionName"] not in closed]}
    )


def _zones(self: Ec2Response) -> ActionResult:
    closed = {item.zone for item in AccountSettings.get(faults.ZoneClosed)}
    answer = _moto_zones(self)
    listed = answer.result["AvailabilityZones"]
    for zone in listed:
        zone.opt_in_status = "opt-in-not-required"
    return ActionResult({"AvailabilityZones": [item for item in listed if item.name not in closed]})


def _offerings(self: Ec2Response) -> ActionResult:
    lacking = AccountSettings.get(faults.NotSold)
    listed = _moto_offerings(self).result["InstanceTypeOfferings"]
    return ActionResult(
        {
            "InstanceTypeOfferings": [
                item
                for item in listed
                if not any(
                    fault.matches(item["InstanceType"], item["Location"]) for fault in lacking
                )
            ]
        }
    )


def require_sold(instance_type: str, zone: str) -> None:
    """Raise Unsupported if a type is not sold in a zone."""
    if any(item.matches(instance_type, zone) for item in AccountSettings.get(faults.NotSold)):
        raise EC2ClientError(
            "Unsupported",
            f"Your requested instance type ({instance_type}) is not supported in your requested "
            f"Availability Zone ({zone}).",
        )


def _default_key(_self: Ec2Response) -> ActionResult:
    keys = [item.key for item in AccountSettings.get(faults.DefaultKey)]
    return ActionResult({"KmsKeyId": keys[-1] if keys else "alias/aws/ebs"})


def _access_block(_self: Ec2Response) -> ActionResult:
    is_blocked = bool(AccountSettings.get(faults.GatewaysBlocked))
    mode = "block-bidirectional" if is_blocked else "off"
    return ActionResult({"VpcBlockPublicAccessOptions": {"InternetGatewayBlockMode": mode}})


def _simulate_principal(self: MotoObject) -> ActionResult:
    return _simulate(self, list(_documents_of(self.backend, self._get_param("PolicySourceArn"))))


def _simulate_custom(self: MotoObject) -> ActionResult:
    given = self._get_param("PolicyInputList", [])
    return _simulate(self, [as_object(json.loads(text)) for text in given])


def _simulate(response: MotoObject, documents: list[JsonObject]) -> ActionResult:
    context = {
        item["ContextKeyName"]: item.get("ContextKeyValues", [])
        for item in response._get_param("ContextEntries", [])  # noqa: SLF001 - moto's way to ask
    }
    asked = response._get_param  # noqa: SLF001 - likewise
    results = [
        _result(documents, Request(action, resource, context))
        for action in asked("ActionNames", [])
        for resource in asked("ResourceArns", []) or ["*"]
    ]
    return ActionResult({"EvaluationResults": results, "IsTruncated": False})


def _result(documents: list[JsonObject], request: Request) -> Parameters:
    denied = {action for item in AccountSettings.get(faults.Denied) for action in item.actions}
    decision = EXPLICIT_DENY if request.action in denied else decide(documents, request)
    return {
        "EvalActionName": request.action,
        "EvalResourceName": request.resource,
        "EvalDecision": decision,
        "MatchedStatements": [],
        "MissingContextValues": [],
    }


def _documents_of(backend: MotoObject, arn: str) -> Iterator[JsonObject]:
    """The policies of a user or role: inline and attached ones."""
    if arn.endswith(f":{OPERATOR}"):
        yield as_object(ALL)
        return
    owners = {item.arn: item for item in (*backend.users.values(), *backend.roles.values())}
    if arn not in owners:
        raise NotFoundException(f"The principal {arn} does not exist")
    owner = owners[arn]
    for text in owner.policies.values():
        yield as_object(json.loads(text))
    for policy in owner.managed_policies.values():
        yield as_object(json.loads(policy.document))


def apply() -> None:
    """Patch moto in this process."""
    SERVICE_NAME_CONVERSION["spot"] = "EC2Spot"
    AvailabilityZonesAndRegions.describe_regions = _regions
    AvailabilityZonesAndRegions.describe_availability_zones = _zones
    InstanceResponse.describe_instance_type_offerings = _offerings
    EC2Response.get_ebs_default_kms_key_id = _default_key
    EC2Response.describe_vpc_block_public_access_options = _access_block
    IamResponse.simulate_principal_policy = _simulate_principal
    IamResponse.simulate_custom_policy = _simulate_custom
