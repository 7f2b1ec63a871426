"""EC2 behind the `Fleet` port: DescribeInstances, CreateFleet `instant`, TerminateInstances by id.

Which machines to buy is not decided here. Prices come from `prices`, with live spot prices where they are believable.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cluster.blueprint import Tag, agent_resources, launch_template_name
from cluster.cloud import aws, prices
from cluster.cloud.port import Capacity, LaunchRequest, LaunchResult, Machine, MachineState, Offering
from cluster.errors import InsufficientCapacity, NotFound, NotOwned, Permanent

CATALOGUE_KEPT_S = 3600.0
ALIVE = frozenset({"pending", "running", "stopping", "stopped"})


class AwsFleet:
    """See `Fleet`. One per process; its calls may come from several threads (boto3 clients may)."""

    def __init__(self, region: str) -> None:
        self._region = region
        self._ec2 = aws.client("ec2", region)
        self._catalogue: dict[tuple[tuple[str, ...], tuple[str, ...], int], tuple[float, list[Offering]]] = {}

    def machines(self, cluster: str) -> list[Machine]:
        """Every instance of the cluster."""
        with aws.translated("ec2 DescribeInstances"):
            return list(self._describe([{"Name": f"tag:{Tag.CLUSTER}", "Values": [cluster]}]))

    def launch(self, request: LaunchRequest) -> LaunchResult:
        """Buy. A token whose machines EC2 already lists is answered with them: ClientToken alone is forgotten in time."""
        where = f"ec2 CreateFleet {launch_template_name(request.cluster, request.pool)}"
        try:
            with aws.translated(where):
                if bought := self._bought_with(request):
                    return LaunchResult(tuple(bought))
                zones = self._subnets(request.cluster)
                answer = self._create(request, zones)
        except InsufficientCapacity:
            return LaunchResult((), tuple(offering.key for offering in request.offerings))
        return _result(answer, request, {subnet: zone for zone, subnet in zones.items()}, where)

    def terminate(self, cluster: str, instance_ids: Sequence[str]) -> None:
        """Terminate after looking whose they are."""
        if not instance_ids:
            return
        with aws.translated("ec2 TerminateInstances"):
            filters = [{"Name": "instance-id", "Values": list(instance_ids)}]
            machines = list(self._describe(filters))
            for machine in machines:
                _assert_ours(machine, cluster)
            if alive := [machine.instance_id for machine in machines if machine.state in ALIVE]:
                self._ec2.terminate_instances(InstanceIds=alive)

    def offerings(self, types: Sequence[str], zones: Sequence[str], disk_gib: int = 40) -> list[Offering]:
        """The catalogue of these types, kept for an hour."""
        key = (tuple(types), tuple(zones), disk_gib)
        kept = self._catalogue.get(key)
        if kept is None or time.monotonic() - kept[0] > CATALOGUE_KEPT_S:
            kept = self._catalogue[key] = (time.monotonic(), self._offerings(types, zones, disk_gib))
        return kept[1]

    def _describe(self, filters: list[dict[str, Any]]) -> Iterable[Machine]:
        for page in self._ec2.get_paginator("describe_instances").paginate(Filters=filters, PaginationConfig={"PageSize": 1000}):
            for reservation in page["Reservations"]:
                yield from (_machine(instance) for instance in reservation["Instances"])

    def _bought_with(self, request: LaunchRequest) -> list[Machine]:
        return list(
            self._describe(
                [{"Name": f"tag:{Tag.CLUSTER}", "Values": [request.cluster]}, {"Name": f"tag:{Tag.LAUNCH}", "Values": [request.token]}]
            )
        )

    def _subnets(self, cluster: str) -> dict[str, str]:
        """Subnet ids by zone."""
        found = self._ec2.describe_subnets(Filters=[{"Name": f"tag:{Tag.CLUSTER}", "Values": [cluster]}])["Subnets"]
        return {subnet["AvailabilityZone"]: subnet["SubnetId"] for subnet in sorted(found, key=lambda item: item["SubnetId"], reverse=True)}

    def _create(self, request: LaunchRequest, subnets: Mapping[str, str]) -> dict[str, Any]:
        overrides = [{"InstanceType": o.instance_type, "SubnetId": subnets[o.zone]} for o in request.offerings if o.zone in subnets]
        if not overrides:
            zones = ", ".join(sorted({offering.zone for offering in request.offerings}))
            raise NotFound(f"no subnet tagged {Tag.CLUSTER}={request.cluster} in {zones}", fix="deploy the network stack: mesaform up")
        capacity = request.offerings[0].capacity
        options: dict[str, Any] = (
            {"SpotOptions": {"AllocationStrategy": "price-capacity-optimized", "InstanceInterruptionBehavior": "terminate"}}
            if capacity == "spot"
            else {"OnDemandOptions": {"AllocationStrategy": "lowest-price"}}
        )
        template = {"LaunchTemplateName": launch_template_name(request.cluster, request.pool), "Version": "$Latest"}
        tags = [{"Key": key, "Value": value} for key, value in _launch_tags(request).items()]
        answer: dict[str, Any] = self._ec2.create_fleet(
            Type="instant",
            ClientToken=request.token,
            LaunchTemplateConfigs=[{"LaunchTemplateSpecification": template, "Overrides": overrides}],
            TargetCapacitySpecification={"TotalTargetCapacity": request.count, "DefaultTargetCapacityType": capacity},
            TagSpecifications=[{"ResourceType": "instance", "Tags": tags}],
            **options,
        )
        return answer

    def _offerings(self, types: Sequence[str], zones: Sequence[str], disk_gib: int) -> list[Offering]:
        sizes = self._sizes(types)
        with aws.translated("ec2 DescribeInstanceTypeOfferings"):
            filters = [{"Name": "instance-type", "Values": list(types)}]
            pages = self._ec2.get_paginator("describe_instance_type_offerings").paginate(LocationType="availability-zone", Filters=filters)
            sold = {(item["InstanceType"], item["Location"]) for page in pages for item in page["InstanceTypeOfferings"]}
        quoted = self._spot_prices(types)
        found: list[Offering] = []
        for name, zone in ((name, zone) for name in types for zone in zones if (name, zone) in sold):
            vcpus, mem_mib, gpus = sizes[name]
            on_demand = prices.usd_per_hour(name) or prices.estimate(vcpus, mem_mib)
            resources = agent_resources(vcpus, mem_mib, disk_gib, gpus)
            costs: dict[Capacity, float] = {"on-demand": on_demand, "spot": prices.spot_price(on_demand, quoted.get((name, zone)))}
            found.extend(Offering(name, zone, capacity, usd, resources) for capacity, usd in costs.items())
        return found

    def _sizes(self, types: Sequence[str]) -> dict[str, tuple[int, int, int]]:
        """Virtual cpus, memory in MiB and GPUs of each type."""
        try:
            with aws.translated("ec2 DescribeInstanceTypes"):
                pages = self._ec2.get_paginator("describe_instance_types").paginate(
                    Filters=[{"Name": "instance-type", "Values": list(types)}]
                )
                found = {item["InstanceType"]: _size(item) for page in pages for item in page["InstanceTypes"]}
        except NotFound:
            found = {}
        if missing := [name for name in types if name not in found]:
            nearest = prices.nearest_type(missing[0])
            raise NotFound(
                f"{self._region} has no instance type {', '.join(missing)}",
                where="the pool's types",
                fix=f"did you mean {nearest}?"
                if nearest and nearest != missing[0]
                else "take one of another generation, or another region",
            )
        return found

    def _spot_prices(self, types: Sequence[str]) -> dict[tuple[str, str], float]:
        with aws.translated("ec2 DescribeSpotPriceHistory"):
            pages = self._ec2.get_paginator("describe_spot_price_history").paginate(
                InstanceTypes=list(types), ProductDescriptions=["Linux/UNIX"], StartTime=time.time()
            )
            newest: dict[tuple[str, str], tuple[Any, float]] = {}
            for item in (item for page in pages for item in page["SpotPriceHistory"]):
                place, quote = (item["InstanceType"], item["AvailabilityZone"]), (item["Timestamp"], float(item["SpotPrice"]))
                newest[place] = max(quote, newest.get(place, quote), key=lambda pair: pair[0])
        return {place: price for place, (_, price) in newest.items()}


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


def _result(answer: Mapping[str, Any], request: LaunchRequest, zones: Mapping[str, str], where: str) -> LaunchResult:
    machines: list[Machine] = []
    for item in answer.get("Instances", []):
        override = item.get("LaunchTemplateAndOverrides", {}).get("Overrides", {})
        zone = override.get("AvailabilityZone") or zones.get(override.get("SubnetId", ""), "")
        capacity: Capacity = "spot" if item.get("Lifecycle") == "spot" else "on-demand"
        machines.extend(
            Machine(instance_id, item["InstanceType"], zone, capacity, "pending", "", "", time.time(), _launch_tags(request))
            for instance_id in item["InstanceIds"]
        )
    without: list[str] = []
    for item in answer.get("Errors", []):
        override = item.get("LaunchTemplateAndOverrides", {}).get("Overrides", {})
        zone = override.get("AvailabilityZone") or zones.get(override.get("SubnetId", ""), "")
        key = f"{override.get('InstanceType', '')}/{zone}/{request.offerings[0].capacity}"
        if item["ErrorCode"] not in aws.WITHOUT_CAPACITY and not machines:
            raise Permanent(f"{item['ErrorCode']}: {item.get('ErrorMessage', '')}", where=f"{where} {key}")
        without.append(key)
    return LaunchResult(tuple(machines), tuple(dict.fromkeys(without)))


def _size(item: Mapping[str, Any]) -> tuple[int, int, int]:
    gpus = sum(int(gpu.get("Count", 0)) for gpu in item.get("GpuInfo", {}).get("Gpus", []))
    return int(item["VCpuInfo"]["DefaultVCpus"]), int(item["MemoryInfo"]["SizeInMiB"]), gpus


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
