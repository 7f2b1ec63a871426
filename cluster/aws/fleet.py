"""Adapter of the `Fleet` port to EC2: DescribeInstances, CreateFleet, TerminateInstances.

Prices and sizes come from `catalogue`, launch templates from `templates`. A `RateLimiter` limits
every call.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from mesaform.aws import client
from mesaform.aws.catalogue import FILTER_VALUES, Catalogue, chunks
from mesaform.aws.create_fleet import (
    fleet_request,
    is_missing_template,
    launch_result,
    missing_template,
    without_capacity,
)
from mesaform.aws.errors import error_code
from mesaform.aws.ports import LaunchRequest, LaunchResult, Machine, Offering, Template
from mesaform.aws.pricing.market import Market
from mesaform.aws.pricing.price_cache import MemoryPriceCache
from mesaform.aws.pricing.spot import AwsSpotFeed
from mesaform.aws.rate_limiter import RateLimiter
from mesaform.aws.templates import Templates
from mesaform.common.errors import InsufficientCapacity, NotFound, NotOwned
from mesaform.topology.names import SERVICE_SUBNET, Tag, launch_template_name

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client
    from mypy_boto3_ec2.type_defs import FilterTypeDef, InstanceTypeDef, SubnetTypeDef

SUBNETS_MAX_AGE_S = 300.0
PAGE_SIZE = 1000
TERMINATE_BATCH = 500
"""Instances per call. EC2 recommends at most 1000."""

REMOVABLE_STATES = frozenset({"pending", "running", "stopping", "stopped"})


class AwsFleet:
    """See `Fleet`. One per process; its calls may come from several threads.

    Args:
        region: the region.
        market: prices that the caller refreshes. Without it the fleet reads spot prices by itself
            when they are due.
        limiter: the request limits; without it the fleet has limits of its own.
        clock: seconds with any origin, for the age of cached answers.
        subnet_filters: returns EC2's filters of the machines' subnets in an existing VPC; without
            filters they are found by the cluster's tag.

    """

    def __init__(
        self,
        region: str,
        market: Market | None = None,
        limiter: RateLimiter | None = None,
        clock: Callable[[], float] = time.monotonic,
        subnet_filters: Callable[[], Mapping[str, Sequence[str]]] = dict,
    ) -> None:
        self._subnet_filters = subnet_filters
        self._clock = clock
        self._ec2: EC2Client = client.client("ec2", region)
        self._limiter = limiter or RateLimiter(clock)
        self._refreshes = market is None
        self.market = market or Market(
            region, None, AwsSpotFeed(region, self._limiter), MemoryPriceCache(), time.time
        )
        self._catalogue = Catalogue(region, self._ec2, self._limiter, self.market, clock)
        self._templates = Templates(self._ec2, self._limiter, clock)
        self._subnets: dict[str, tuple[float, dict[str, str]]] = {}

    def machines(self, cluster: str) -> list[Machine]:
        """See `Fleet.machines`."""
        return list(self._describe([{"Name": f"tag:{Tag.CLUSTER}", "Values": [cluster]}]))

    def launch(self, request: LaunchRequest) -> LaunchResult:
        """See `Fleet.launch`.

        If EC2 already lists machines with the token, the result is these machines: EC2 forgets a
        ClientToken in time.
        """
        where = f"ec2 CreateFleet {launch_template_name(request.cluster, request.pool)}"
        if launched := self._launched_with(request):
            return LaunchResult(tuple(launched))
        deployment = self._templates.deployment_of(request.cluster)
        if deployment:
            request = replace(request, tags={**request.tags, Tag.DEPLOYMENT: deployment})
        subnets = self._subnets_of(request.cluster, deployment)
        call = fleet_request(request, subnets)
        try:
            with self._limiter.limit("CreateFleet", machines=request.count):
                answer = self._ec2.create_fleet(**call)
        except InsufficientCapacity as error:
            return without_capacity(request, error_code(error.__cause__))
        except NotFound as error:
            is_missing = is_missing_template(error_code(error.__cause__))
            raise (missing_template(request) if is_missing else error) from None
        zones = {subnet: zone for zone, subnet in subnets.items()}
        return launch_result(answer, request, zones, where)

    def terminate(self, cluster: str, instance_ids: Sequence[str]) -> None:
        """See `Fleet.terminate`. The owners of all machines are checked first."""
        machines: list[Machine] = []
        for ids in chunks(dict.fromkeys(instance_ids), FILTER_VALUES):
            machines += self._describe([{"Name": "instance-id", "Values": ids}])
        for machine in machines:
            _check_owner(machine, cluster, self._templates.known_deployment(cluster))
        removable = (m.instance_id for m in machines if m.state in REMOVABLE_STATES)
        for ids in chunks(removable, TERMINATE_BATCH):
            with self._limiter.limit("TerminateInstances"):
                self._ec2.terminate_instances(InstanceIds=ids)

    def offerings(
        self, types: Sequence[str], zones: Sequence[str], disk_gib: int = 40
    ) -> list[Offering]:
        """See `Fleet.offerings`."""
        if self._refreshes:
            self.market.refresh(types)
        return self._catalogue.offerings(types, zones, disk_gib)

    def templates(self, cluster: str, needed: Collection[str] = ()) -> Mapping[str, Template]:
        """See `Fleet.templates`."""
        return self._templates.of(cluster, needed)

    def _describe(self, filters: list[FilterTypeDef]) -> Iterator[Machine]:
        paginator = self._ec2.get_paginator("describe_instances")
        pages = iter(paginator.paginate(Filters=filters, PaginationConfig={"PageSize": PAGE_SIZE}))
        while True:
            with self._limiter.limit("DescribeInstances"):
                page = next(pages)
            for reservation in page["Reservations"]:
                yield from (_machine(instance) for instance in reservation["Instances"])
            if not page.get("NextToken"):
                return

    def _launched_with(self, request: LaunchRequest) -> list[Machine]:
        """The machines that EC2 lists with the token of a request."""
        filters: list[FilterTypeDef] = [
            {"Name": f"tag:{Tag.CLUSTER}", "Values": [request.cluster]},
            {"Name": f"tag:{Tag.LAUNCH}", "Values": [request.token]},
        ]
        return list(self._describe(filters))

    def _subnets_of(self, cluster: str, deployment: str) -> dict[str, str]:
        """Ids of the deployment's subnets by zone, up to `SUBNETS_MAX_AGE_S` old."""
        read_at, subnets = self._subnets.get(cluster, (0.0, {}))
        if subnets and self._clock() - read_at <= SUBNETS_MAX_AGE_S:
            return subnets
        filters = self._filters(cluster, deployment)
        with self._limiter.limit("DescribeSubnets"):
            answer = self._ec2.describe_subnets(Filters=filters)["Subnets"]
        listed = [subnet for subnet in answer if not _holds_services(subnet, cluster)]
        listed.sort(key=lambda subnet: subnet["SubnetId"], reverse=True)
        subnets = {subnet["AvailabilityZone"]: subnet["SubnetId"] for subnet in listed}
        self._subnets[cluster] = (self._clock(), subnets)
        return subnets

    def _filters(self, cluster: str, deployment: str) -> list[FilterTypeDef]:
        own = {f"tag:{Tag.CLUSTER}": [cluster]}
        if deployment:
            own[f"tag:{Tag.DEPLOYMENT}"] = [deployment]
        wanted: Mapping[str, Sequence[str]] = self._subnet_filters() or own
        return [{"Name": name, "Values": values} for name, values in wanted.items()]


def _holds_services(subnet: SubnetTypeDef, cluster: str) -> bool:
    """Whether a subnet of the cluster is for gateways and endpoints, and not for machines."""
    tags = {tag["Key"]: tag["Value"] for tag in subnet.get("Tags", [])}
    return tags.get(Tag.CLUSTER) == cluster and tags.get(Tag.ROLE) == SERVICE_SUBNET


def _check_owner(machine: Machine, cluster: str, deployment: str) -> None:
    expected = {Tag.CLUSTER: cluster, Tag.ROLE: "agent", Tag.MANAGED_BY: "autoscaler"}
    if deployment and Tag.DEPLOYMENT in machine.tags:  # machines older than ids have none
        expected[Tag.DEPLOYMENT] = deployment
    for key, value in expected.items():
        if machine.tags.get(key) != value:
            raise NotOwned(
                f"its tag {key} is {machine.tags.get(key, 'absent')!r}, not {value!r}: "
                "the autoscaler does not terminate it",
                where=machine.instance_id,
            )


def _machine(instance: InstanceTypeDef) -> Machine:
    return Machine(
        instance_id=instance["InstanceId"],
        instance_type=instance["InstanceType"],
        zone=instance.get("Placement", {}).get("AvailabilityZone", ""),
        capacity="spot" if instance.get("InstanceLifecycle") == "spot" else "on-demand",
        state=instance["State"]["Name"],
        private_address=instance.get("PrivateIpAddress", ""),
        public_address=instance.get("PublicIpAddress", ""),
        launched_at=instance["LaunchTime"].timestamp(),
        tags={tag["Key"]: tag["Value"] for tag in instance.get("Tags", [])},
        ended_by=instance.get("StateReason", {}).get("Code", ""),
    )
