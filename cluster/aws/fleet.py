"""EC2 behind the `Fleet` port: DescribeInstances, CreateFleet `instant`, TerminateInstances by id.

Which machines to buy is not decided here. What they cost and hold is in `fleet_catalogue`; every call is paced (`pacing`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from mesaform.aws import capacity_errors, client
from mesaform.aws.catalogue import FILTER_VALUES, Catalogue, Templates, chunks
from mesaform.aws.errors import Fault, classify, error_code
from mesaform.aws.ports import (
    Capacity,
    LaunchRequest,
    LaunchResult,
    Machine,
    MachineState,
    Offering,
    Template,
)
from mesaform.aws.pricing.market import Market
from mesaform.aws.pricing.price_cache import MemoryPriceCache
from mesaform.aws.pricing.spot import AwsSpotFeed
from mesaform.aws.rate_limiter import RateLimiter
from mesaform.common.errors import InsufficientCapacity, NotFound, NotOwned, Permanent
from mesaform.topology.names import Tag, launch_template_name

SUBNETS_KEPT_S = 300.0
TERMINATED_AT_ONCE = 500
ALIVE = frozenset({"pending", "running", "stopping", "stopped"})


class AwsFleet:
    """See `Fleet`. One per process; its calls may come from several threads (boto3 clients may).

    Args:
        region: the region.
        market: prices, which somebody else refreshes; without one, spot prices are asked for here when they are due.
        pacer: who keeps the request limits; its own without one.
        clock: seconds of any origin, for the age of what is kept.

    """

    def __init__(
        self,
        region: str,
        market: Market | None = None,
        pacer: RateLimiter | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._ec2 = client.client("ec2", region)
        self._pacer = pacer or RateLimiter(clock)
        self._refreshes = market is None
        self.market = market or Market(
            region, None, AwsSpotFeed(region, self._pacer), MemoryPriceCache(), time.time
        )
        self._catalogue = Catalogue(region, self._ec2, self._pacer, self.market, clock)
        self._templates = Templates(self._ec2, self._pacer, clock)
        self._subnets: dict[str, tuple[float, dict[str, str]]] = {}

    def machines(self, cluster: str) -> list[Machine]:
        """Every instance of the cluster."""
        return list(self._describe([{"Name": f"tag:{Tag.CLUSTER}", "Values": [cluster]}]))

    def launch(self, request: LaunchRequest) -> LaunchResult:
        """Buy. A token whose machines EC2 already lists is answered with them: ClientToken alone is forgotten in time."""
        where = f"ec2 CreateFleet {launch_template_name(request.cluster, request.pool)}"
        if bought := self._bought_with(request):
            return LaunchResult(tuple(bought))
        zones = self._subnets_of(request.cluster)
        call = _fleet_call(request, zones)
        try:
            with self._pacer.limit("CreateFleet", machines=request.count):
                answer = self._ec2.create_fleet(**call)
        except InsufficientCapacity as error:
            code = error_code(error.__cause__)
            return LaunchResult(
                (),
                tuple(
                    dict.fromkeys(
                        capacity_errors.of_error(code, offering.key)
                        for offering in request.offerings
                    )
                ),
            )
        return _result(answer, request, {subnet: zone for zone, subnet in zones.items()}, where)

    def terminate(self, cluster: str, instance_ids: Sequence[str]) -> None:
        """Terminate after looking whose they are; of one batch all or none."""
        machines: list[Machine] = []
        for ids in chunks(dict.fromkeys(instance_ids), FILTER_VALUES):
            machines += self._describe([{"Name": "instance-id", "Values": ids}])
        for machine in machines:
            _assert_ours(machine, cluster)
        for alive in chunks(
            (machine.instance_id for machine in machines if machine.state in ALIVE),
            TERMINATED_AT_ONCE,
        ):
            with self._pacer.limit("TerminateInstances"):
                self._ec2.terminate_instances(InstanceIds=alive)

    def offerings(
        self, types: Sequence[str], zones: Sequence[str], disk_gib: int = 40
    ) -> list[Offering]:
        """The catalogue of these types at the prices of this moment."""
        if self._refreshes:
            self.market.refresh(types)
        return self._catalogue.offerings(types, zones, disk_gib)

    def templates(self, cluster: str) -> Mapping[str, Template]:
        """The launch templates by pool."""
        return self._templates.of(cluster)

    def _describe(self, filters: list[dict[str, Any]]) -> Iterator[Machine]:
        pages = iter(
            self._ec2.get_paginator("describe_instances").paginate(
                Filters=filters, PaginationConfig={"PageSize": 1000}
            )
        )
        while True:
            with self._pacer.limit("DescribeInstances"):
                page = next(pages)
            for reservation in page["Reservations"]:
                yield from (_machine(instance) for instance in reservation["Instances"])
            if not page.get("NextToken"):
                return

    def _bought_with(self, request: LaunchRequest) -> list[Machine]:
        return list(
            self._describe(
                [
                    {"Name": f"tag:{Tag.CLUSTER}", "Values": [request.cluster]},
                    {"Name": f"tag:{Tag.LAUNCH}", "Values": [request.token]},
                ]
            )
        )

    def _subnets_of(self, cluster: str) -> dict[str, str]:
        """Subnet ids by zone."""
        kept = self._subnets.get(cluster)
        if kept is None or self._clock() - kept[0] > SUBNETS_KEPT_S:
            with self._pacer.limit("DescribeSubnets"):
                found = self._ec2.describe_subnets(
                    Filters=[{"Name": f"tag:{Tag.CLUSTER}", "Values": [cluster]}]
                )["Subnets"]
            ordered = sorted(found, key=lambda item: item["SubnetId"], reverse=True)
            kept = (
                self._clock(),
                {subnet["AvailabilityZone"]: subnet["SubnetId"] for subnet in ordered},
            )
            if found:
                self._subnets[cluster] = kept
        return kept[1]


def _fleet_call(request: LaunchRequest, subnets: Mapping[str, str]) -> dict[str, Any]:
    """CreateFleet's arguments. On demand the order of the offerings counts, which is by price; for spot EC2 weighs price and capacity."""
    capacity = request.offerings[0].capacity
    places = [(o.instance_type, subnets[o.zone]) for o in request.offerings if o.zone in subnets]
    if not places:
        zones = ", ".join(sorted({offering.zone for offering in request.offerings}))
        raise NotFound(
            f"no subnet tagged {Tag.CLUSTER}={request.cluster} in {zones}",
            fix="deploy the network stack: mesaform up",
        )
    overrides: list[dict[str, Any]] = [
        {"InstanceType": kind, "SubnetId": subnet} for kind, subnet in places
    ]
    options: dict[str, Any] = {
        "SpotOptions": {
            "AllocationStrategy": "price-capacity-optimized",
            "InstanceInterruptionBehavior": "terminate",
        }
    }
    if capacity == "on-demand":
        options = {"OnDemandOptions": {"AllocationStrategy": "prioritized"}}
        overrides = [
            {**override, "Priority": float(order)} for order, override in enumerate(overrides)
        ]
    template = {
        "LaunchTemplateName": launch_template_name(request.cluster, request.pool),
        "Version": "$Latest",
    }
    tags = [{"Key": key, "Value": value} for key, value in _launch_tags(request).items()]
    return {
        "Type": "instant",
        "ClientToken": request.token,
        "LaunchTemplateConfigs": [
            {"LaunchTemplateSpecification": template, "Overrides": overrides}
        ],
        "TargetCapacitySpecification": {
            "TotalTargetCapacity": request.count,
            "DefaultTargetCapacityType": capacity,
        },
        "TagSpecifications": [{"ResourceType": "instance", "Tags": tags}],
        **options,
    }


def _launch_tags(request: LaunchRequest) -> dict[str, str]:
    return {
        **request.tags,
        Tag.CLUSTER: request.cluster,
        Tag.ROLE: "agent",
        Tag.POOL: request.pool,
        Tag.MANAGED_BY: "autoscaler",
        Tag.LAUNCH: request.token,
        Tag.NAME: f"mesaform-{request.cluster}-{request.pool}-auto",
    }


def _assert_ours(machine: Machine, cluster: str) -> None:
    expected = {Tag.CLUSTER: cluster, Tag.ROLE: "agent", Tag.MANAGED_BY: "autoscaler"}
    for key, value in expected.items():
        if machine.tags.get(key) != value:
            raise NotOwned(
                f"its tag {key} is {machine.tags.get(key, 'absent')!r}, not {value!r}: not the autoscaler's to terminate",
                where=machine.instance_id,
            )


def _result(
    answer: Mapping[str, Any], request: LaunchRequest, zones: Mapping[str, str], where: str
) -> LaunchResult:
    machines: list[Machine] = []
    for item in answer.get("Instances", []):
        override = item.get("LaunchTemplateAndOverrides", {}).get("Overrides", {})
        zone = override.get("AvailabilityZone") or zones.get(override.get("SubnetId", ""), "")
        capacity: Capacity = "spot" if item.get("Lifecycle") == "spot" else "on-demand"
        machines.extend(
            Machine(
                instance_id,
                item["InstanceType"],
                zone,
                capacity,
                "pending",
                "",
                "",
                time.time(),
                _launch_tags(request),
            )
            for instance_id in item["InstanceIds"]
        )
    without: list[str] = []
    for item in answer.get("Errors", []):
        override = item.get("LaunchTemplateAndOverrides", {}).get("Overrides", {})
        zone = override.get("AvailabilityZone") or zones.get(override.get("SubnetId", ""), "")
        key = f"{override.get('InstanceType', '')}/{zone}/{request.offerings[0].capacity}"
        if classify(item["ErrorCode"]) in {Fault.THROTTLED, Fault.SERVER}:
            continue  # says nothing of the offering; the same token would be told the same, so the next pass asks with another
        if classify(item["ErrorCode"]) is not Fault.NO_CAPACITY and not machines:
            raise Permanent(
                f"{item['ErrorCode']}: {item.get('ErrorMessage', '')}", where=f"{where} {key}"
            )
        without.append(capacity_errors.of_error(item["ErrorCode"], key))
    return LaunchResult(tuple(machines), tuple(dict.fromkeys(without)))


def _machine(instance: Mapping[str, Any]) -> Machine:
    state: MachineState = instance["State"]["Name"]
    return Machine(
        instance_id=instance["InstanceId"],
        instance_type=instance["InstanceType"],
        zone=instance.get("Placement", {}).get("AvailabilityZone", ""),
        capacity="spot" if instance.get("InstanceLifecycle") == "spot" else "on-demand",
        state=state,
        private_address=instance.get("PrivateIpAddress", ""),
        public_address=instance.get("PublicIpAddress", ""),
        launched_at=instance["LaunchTime"].timestamp(),
        tags={tag["Key"]: tag["Value"] for tag in instance.get("Tags", [])},
        ended_by=instance.get("StateReason", {}).get("Code", ""),
    )
