"""CreateFleet of type `instant`: buys from the cheapest offered pool, then from the next.

Pools without capacity are listed in `Errors`. Fleets of type `request` and `maintain` are moto's.
"""

from __future__ import annotations

from collections.abc import Callable

from moto.core.responses import ActionResult
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.responses.fleets import Fleets
from moto.ec2.utils import random_fleet_id

from mesaform.localcloud.moto_patches import launch, spot_role, vcpu_quota
from mesaform.localcloud.moto_patches.moto_types import Ec2Backend, Ec2Response, Parameters
from mesaform.localcloud.moto_patches.tokens import execute_once

_moto_create_fleet = Fleets.create_fleet
PRIORITIZED = frozenset({"prioritized", "capacity-optimized-prioritized"})
"""The allocation strategies that follow the overrides' priorities instead of prices."""


class Prices:
    """What an offering costs; set by `moto_patches.apply`.

    `usd_per_hour(type, zone, capacity)` is the price in USD an hour.
    """

    usd_per_hour: Callable[[str, str, str], float] = staticmethod(
        lambda _type, _zone, _capacity: 1.0
    )


class Pool:
    """One launch template with one override: something that a fleet may buy."""

    def __init__(
        self, backend: Ec2Backend, reference: Parameters, override: Parameters, order: int
    ) -> None:
        self.backend = backend
        self.version = launch.template_version(backend, reference)
        self.template = {
            "LaunchTemplateId": self.version.template.id,
            "Version": str(self.version.number),
        }
        self.reference = {**reference, **self.template}
        self.override = {
            key: value for key, value in override.items() if value not in (None, [], {})
        }
        self.order = order

    @property
    def priority(self) -> float:
        """The override's priority, lowest first; without one the order of the request."""
        return float(self.override.get("Priority", self.order))

    @property
    def weight(self) -> float:
        """The units of target capacity that an instance counts."""
        return float(self.override.get("WeightedCapacity") or 1)

    def spec(self, capacity: str, instance_tags: list[Parameters]) -> launch.Spec:
        """The specification of one instance of this pool."""
        request: Parameters = {
            key: self.override[key]
            for key in ("InstanceType", "SubnetId", "ImageId", "Placement")
            if key in self.override
        }
        if zone := self.override.get("AvailabilityZone"):
            request["Placement"] = {**request.get("Placement", {}), "AvailabilityZone": zone}
        request["TagSpecifications"] = instance_tags
        request["LaunchTemplate"] = self.template
        spec = launch.resolve(self.backend, request)
        spec["InstanceMarketOptions"] = {"MarketType": "spot"} if capacity == "spot" else {}
        return spec

    def description(self) -> Parameters:
        """The pool as CreateFleet's answer names it."""
        described: Parameters = {"LaunchTemplateSpecification": self.reference}
        if self.override:
            described["Overrides"] = self.override
        return described


class Purchase:
    """One CreateFleet call."""

    def __init__(self, backend: Ec2Backend, request: Parameters, response: Ec2Response) -> None:
        self.backend = backend
        self.response = response
        self.request = request
        self.fleet_id = random_fleet_id()
        self.instances: list[Parameters] = []
        self.errors: list[Parameters] = []
        self.pools = [
            Pool(backend, config["LaunchTemplateSpecification"], override, order)
            for config in request.get("LaunchTemplateConfigs") or ()
            for order, override in enumerate(config.get("Overrides") or [{}])
        ]
        if not self.pools:
            raise EC2ClientError(
                "MissingParameter", "The request must contain the parameter LaunchTemplateConfigs"
            )

    def targets(self) -> list[tuple[str, float]]:
        """The units to buy of each capacity type."""
        target = self.request.get("TargetCapacitySpecification") or {}
        total = float(target.get("TotalTargetCapacity") or 0)
        wanted = {
            "on-demand": float(target.get("OnDemandTargetCapacity") or 0),
            "spot": float(target.get("SpotTargetCapacity") or 0),
        }
        default = target.get("DefaultTargetCapacityType") or "on-demand"
        wanted[default] += max(0.0, total - sum(wanted.values()))
        return [(capacity, units) for capacity, units in wanted.items() if units > 0]

    def execute(self) -> Parameters:
        """Buy, and return CreateFleet's answer."""
        for capacity, units in self.targets():
            self._buy(capacity, units)
        return {"FleetId": self.fleet_id, "Instances": self.instances, "Errors": self.errors}

    def check(self) -> None:
        """Check what a dry run checks of each pool."""
        for capacity, _ in self.targets():
            for pool in self.pools:
                launch.require_launchable(self.backend, pool.spec(capacity, []))

    def _ordered(self, capacity: str) -> list[Pool]:
        options = self.request.get("SpotOptions" if capacity == "spot" else "OnDemandOptions") or {}
        if options.get("AllocationStrategy") in PRIORITIZED:
            return sorted(self.pools, key=lambda pool: pool.priority)
        return sorted(self.pools, key=lambda pool: self._price(pool, capacity) / pool.weight)

    def _price(self, pool: Pool, capacity: str) -> float:
        spec = pool.spec(capacity, [])
        zone = launch.place(self.backend, spec)
        return Prices.usd_per_hour(str(spec.get("InstanceType")), zone, capacity)

    def _tags(self) -> list[Parameters]:
        own = launch.tag_specification("instance", {"aws:ec2:fleet-id": self.fleet_id})
        asked = [
            item
            for item in self.request.get("TagSpecifications") or ()
            if item["ResourceType"] != "fleet"
        ]
        return [*asked, own]

    def _buy(self, capacity: str, units: float) -> None:
        """Buy from the pools in order until the units are reached."""
        for pool in self._ordered(capacity):
            instance_ids: list[str] = []
            try:
                self._fill(pool, capacity, units, instance_ids)
            except EC2ClientError as error:
                self.errors.append(_error(pool, capacity, error))
            if instance_ids:
                self._record(pool, capacity, instance_ids)
            units -= pool.weight * len(instance_ids)
            if units <= 0:
                return

    def _fill(self, pool: Pool, capacity: str, units: float, instance_ids: list[str]) -> None:
        """Launch in one pool; what was launched before an error is in `instance_ids`."""
        spec = pool.spec(capacity, self._tags())
        zone = launch.place(self.backend, spec)
        placement = {key: spec[key] for key in ("SubnetId", "NetworkInterfaces") if key in spec}
        while units > 0:
            launch.require_capacity(spec, zone)
            spot_role.require(self.response, is_spot=capacity == "spot")
            vcpu_quota.require(self.backend, spec, 1)
            request = pool.spec(capacity, self._tags()) | placement
            reservation = launch.launch(self.backend, request, 1, zone)
            instance_ids.append(reservation.instances[0].id)
            units -= pool.weight

    def _record(self, pool: Pool, capacity: str, instance_ids: list[str]) -> None:
        self.instances.append(
            {
                "LaunchTemplateAndOverrides": pool.description(),
                "Lifecycle": capacity,
                "InstanceIds": instance_ids,
                "InstanceType": self.backend.get_instance(instance_ids[0]).instance_type,
                "Platform": "",
            }
        )


def _error(pool: Pool, capacity: str, error: EC2ClientError) -> Parameters:
    return {
        "LaunchTemplateAndOverrides": pool.description(),
        "Lifecycle": capacity,
        "ErrorCode": error.code,
        "ErrorMessage": str(error.message),
    }


def _create_fleet(self: Ec2Response) -> ActionResult:
    request = dict(self.params)
    if request.get("Type") != "instant":
        return _moto_create_fleet(self)
    backend = self.ec2_backend
    if self._get_param("DryRun", False):
        Purchase(backend, request, self).check()
        self.error_on_dryrun()

    def purchase() -> Parameters:
        return Purchase(backend, request, self).execute()

    return ActionResult(execute_once(backend, "CreateFleet", request, purchase))


def apply() -> None:
    """Patch moto in this process."""
    Fleets.create_fleet = _create_fleet
