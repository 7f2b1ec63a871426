"""CreateFleet of type `instant`: the cheapest of the offered pools that has capacity, then the next; what had none is in `Errors`.

Fleets that live on (`request`, `maintain`) are left to moto.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from moto.core.responses import ActionResult
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.responses.fleets import Fleets
from moto.ec2.utils import random_fleet_id

from mesaform.localcloud.moto_patches import launch
from mesaform.localcloud.moto_patches.tokens import once

_moto_create_fleet = Fleets.create_fleet
PRIORITIZED = frozenset({"prioritized", "capacity-optimized-prioritized"})


class Prices:
    """What an offering costs, put here by the endpoint's composition: (type, zone, capacity) -> USD an hour."""

    usd_per_hour: Callable[[str, str, str], float] = staticmethod(
        lambda _type, _zone, _capacity: 1.0
    )


class Pool:
    """One launch template with one override: something a fleet may buy."""

    def __init__(
        self, backend: Any, reference: dict[str, Any], override: dict[str, Any], order: int
    ) -> None:
        self.backend = backend
        self.version = launch.template_version(backend, reference)
        self.reference = {
            **reference,
            "LaunchTemplateId": self.version.template.id,
            "Version": str(self.version.number),
        }
        self.override = {
            key: value for key, value in override.items() if value not in (None, [], {})
        }
        self.order = order

    @property
    def priority(self) -> float:
        return float(self.override.get("Priority", self.order))

    @property
    def weight(self) -> float:
        return float(self.override.get("WeightedCapacity") or 1)

    def spec(self, capacity: str, instance_tags: list[dict[str, Any]]) -> launch.Spec:
        request: dict[str, Any] = {
            key: self.override[key]
            for key in ("InstanceType", "SubnetId", "ImageId", "Placement")
            if key in self.override
        }
        if zone := self.override.get("AvailabilityZone"):
            request["Placement"] = {**request.get("Placement", {}), "AvailabilityZone": zone}
        request["TagSpecifications"] = instance_tags
        request["LaunchTemplate"] = {
            "LaunchTemplateId": self.version.template.id,
            "Version": str(self.version.number),
        }
        spec = launch.resolve(self.backend, request)
        spec["InstanceMarketOptions"] = {"MarketType": "spot"} if capacity == "spot" else {}
        return spec

    @property
    def described(self) -> dict[str, Any]:
        described: dict[str, Any] = {"LaunchTemplateSpecification": self.reference}
        if self.override:
            described["Overrides"] = self.override
        return described


class Purchase:
    """One CreateFleet call at work."""

    def __init__(self, backend: Any, request: dict[str, Any]) -> None:
        self.backend = backend
        self.request = request
        self.fleet_id = random_fleet_id()
        self.instances: list[dict[str, Any]] = []
        self.errors: list[dict[str, Any]] = []
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
        target = self.request.get("TargetCapacitySpecification") or {}
        total = float(target.get("TotalTargetCapacity") or 0)
        wanted = {
            "on-demand": float(target.get("OnDemandTargetCapacity") or 0),
            "spot": float(target.get("SpotTargetCapacity") or 0),
        }
        default = target.get("DefaultTargetCapacityType") or "on-demand"
        wanted[default] += max(0.0, total - sum(wanted.values()))
        return [(capacity, units) for capacity, units in wanted.items() if units > 0]

    def answer(self) -> dict[str, Any]:
        for capacity, units in self.targets():
            self._buy(capacity, units)
        return {"FleetId": self.fleet_id, "Instances": self.instances, "Errors": self.errors}

    def _ordered(self, capacity: str) -> list[Pool]:
        options = self.request.get("SpotOptions" if capacity == "spot" else "OnDemandOptions") or {}
        if options.get("AllocationStrategy") in PRIORITIZED:
            return sorted(self.pools, key=lambda pool: pool.priority)
        return sorted(self.pools, key=lambda pool: self._price(pool, capacity) / pool.weight)

    def _price(self, pool: Pool, capacity: str) -> float:
        spec = pool.spec(capacity, [])
        return Prices.usd_per_hour(
            str(spec.get("InstanceType")), launch.place(self.backend, spec), capacity
        )

    def _tags(self) -> list[dict[str, Any]]:
        own = {
            "ResourceType": "instance",
            "Tags": [{"Key": "aws:ec2:fleet-id", "Value": self.fleet_id}],
        }
        asked = [
            item
            for item in self.request.get("TagSpecifications") or ()
            if item["ResourceType"] != "fleet"
        ]
        return [*asked, own]

    def _buy(self, capacity: str, units: float) -> None:
        for pool in self._ordered(capacity):
            bought: list[str] = []
            try:
                spec = pool.spec(capacity, self._tags())
                zone = launch.place(self.backend, spec)
                while units > 0:
                    launch.require_capacity(spec, zone)
                    made = launch.launch(
                        self.backend, pool.spec(capacity, self._tags()) | _placed(spec), 1, zone
                    )
                    bought.append(made.instances[0].id)
                    units -= pool.weight
            except EC2ClientError as error:
                self.errors.append(_error(pool, capacity, error))
            if bought:
                self._record(pool, capacity, bought)
            if units <= 0:
                return

    def _record(self, pool: Pool, capacity: str, bought: list[str]) -> None:
        kind = self.backend.get_instance(bought[0]).instance_type
        self.instances.append(
            {
                "LaunchTemplateAndOverrides": pool.described,
                "Lifecycle": capacity,
                "InstanceIds": bought,
                "InstanceType": kind,
                "Platform": "",
            }
        )


def _placed(spec: launch.Spec) -> launch.Spec:
    """What `launch.place` settled, for the next launch of the same pool."""
    return {key: spec[key] for key in ("SubnetId", "NetworkInterfaces") if key in spec}


def _error(pool: Pool, capacity: str, error: EC2ClientError) -> dict[str, Any]:
    return {
        "LaunchTemplateAndOverrides": pool.described,
        "Lifecycle": capacity,
        "ErrorCode": error.code,
        "ErrorMessage": str(error.message),
    }


def _create_fleet(self: Any) -> Any:
    request = dict(self.params)
    if request.get("Type") != "instant":
        return _moto_create_fleet(self)
    self.error_on_dryrun()
    return ActionResult(
        once(
            self.ec2_backend,
            "CreateFleet",
            request,
            lambda: Purchase(self.ec2_backend, request).answer(),
        )
    )


def apply() -> None:
    Fleets.create_fleet = _create_fleet
