"""What the account finds ready: base images and their public SSM parameter, instance types of one's own region only, spot prices.

`prepare` must run before moto is imported: it decides what moto loads.
"""

from __future__ import annotations

import hashlib
import math
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from mesaform.aws.pricing import price_book

BASE_PARAMETER = "/aws/service/debian/release/12/latest/amd64"
BASE_NAME = "debian-12-amd64-20260901-2222"
BASE_OWNER = "000000000012"  # nobody's: so that the base image is never taken for the account's own
_OFFERINGS = "instance_type_offerings"
LONGEST_STEPS = 144
"""A day of spot prices: what is older is not told."""


def prepare() -> None:
    """Settings that moto reads on import, and lazy loading of what it would read in full (every region's offerings)."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        del os.environ[name]  # an operator's profile or endpoint must not reach moto's own boto3
    os.environ.update(
        {
            "AWS_ACCESS_KEY_ID": "local",
            "AWS_SECRET_ACCESS_KEY": "local",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "MOTO_EC2_LOAD_DEFAULT_AMIS": "false",
            "MOTO_EC2_ENABLE_INSTANCE_TYPE_VALIDATION": "true",
        }
    )
    from moto.utilities import utils

    load = utils.load_resource
    utils.load_resource = lambda path: [] if _OFFERINGS in path else load(path)
    try:
        from moto.ec2.models import instance_types
    finally:
        utils.load_resource = load
    for location in instance_types.INSTANCE_TYPE_OFFERINGS:
        instance_types.INSTANCE_TYPE_OFFERINGS[location] = _Regions(location, load)


class _Regions(dict[str, list[dict[str, str]]]):
    """Offerings by region, read when first asked for."""

    def __init__(self, location: str, load: Callable[[str], Any]) -> None:
        super().__init__()
        self._location = location
        self._load = load

    def __missing__(self, region: str) -> list[dict[str, str]]:
        for suffix in (".json", ".json.gz"):
            try:
                found: list[dict[str, str]] = self._load(
                    os.path.join("ec2", "resources", _OFFERINGS, self._location, region + suffix)  # noqa: PTH118
                )
            except FileNotFoundError:
                continue
            for item in found:
                item["LocationType"] = self._location
            self[region] = found
            return found
        raise KeyError(region)

    def get(self, region: str, default: Any = None) -> Any:
        try:
            return self[region]
        except KeyError:
            return default


def base_image_id(region: str) -> str:
    """The base image's id in a region: the same on every start."""
    return "ami-" + hashlib.sha256(f"{BASE_NAME}/{region}".encode()).hexdigest()[:17]


STEP_S = 600.0
"""How often a spot price changes."""


def spot_share(instance_type: str, zone: str, at: float) -> float:
    """What spot costs of the on-demand price, 0.30 to 0.40: by type and zone, moving slowly and always in the same way."""
    seed = hashlib.sha256(f"{instance_type}/{zone}".encode()).digest()
    period_s = 6 * 3600 + seed[1] * 300
    wave = math.sin(math.tau * (at // STEP_S * STEP_S / period_s + seed[2] / 256))
    return 0.325 + 0.05 * seed[0] / 255 + 0.025 * wave


def usd_per_hour(instance_type: str, zone: str, capacity: str, at: float | None = None) -> float:
    """The price of an offering: the product's price book, and its estimate for types that the book does not know."""
    from moto.ec2.models.instance_types import INSTANCE_TYPES

    price = price_book.usd_per_hour(instance_type)
    if price is None:
        kind = INSTANCE_TYPES.get(instance_type)
        price = (
            price_book.estimate(kind["VCpuInfo"]["DefaultVCpus"], kind["MemoryInfo"]["SizeInMiB"])
            if kind
            else 1000.0
        )
    return (
        price * spot_share(instance_type, zone, time.time() if at is None else at)
        if capacity == "spot"
        else price
    )


def _spot_price_history(self: Any) -> Any:
    from moto.core.responses import ActionResult

    offered = self.ec2_backend.describe_spot_price_history(
        self._get_param("InstanceTypes", []), self._history_filters()
    )
    now = time.time()
    history = [
        {
            "InstanceType": item["InstanceType"],
            "ProductDescription": "Linux/UNIX",
            "SpotPrice": f"{usd_per_hour(item['InstanceType'], item['Location'], 'spot', at):.6f}",
            "AvailabilityZone": item["Location"],
            "Timestamp": datetime.fromtimestamp(at, UTC),
        }
        for item in offered
        for at in _changes(self._get_param("StartTime"), now)
    ]
    return ActionResult({"SpotPriceHistory": history})


def _changes(start: Any, now: float) -> list[float]:
    """When prices changed since `start`, newest first; the last one is what was in force then. Without a start only the price now."""
    newest = now // STEP_S * STEP_S
    since = (
        start.timestamp()
        if isinstance(start, datetime)
        else datetime.fromisoformat(start).timestamp()
        if start
        else now
    )
    steps = max(0, min(LONGEST_STEPS, math.ceil((newest - since) / STEP_S)))
    return [newest - step * STEP_S for step in range(steps + 1)]


def _history_filters(self: Any) -> dict[str, Any]:
    filters = dict(self._filters_from_querystring())
    filters.pop("product-description", None)
    if zone := self._get_param("AvailabilityZone"):
        filters["availability-zone"] = [zone]
    return filters


def _register_base(backend: Any) -> None:
    from moto.ec2.models.amis import Ami

    image_id = base_image_id(backend.region_name)
    backend.amis[image_id] = Ami(
        backend,
        image_id,
        name=BASE_NAME,
        description="Debian 12 (20260901-2222)",
        owner_id=BASE_OWNER,
        public=True,
        virtualization_type="hvm",
        architecture="x86_64",
        root_device_type="ebs",
        root_device_name="/dev/xvda",
        hypervisor="xen",
        region_name=f"{backend.region_name}a",
        image_location=f"amazon/{BASE_NAME}",
    )


def _after(original: Any, then: Callable[[Any], None]) -> Any:
    def initialise(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        then(self)

    return initialise


def _add_base_parameter(backend: Any) -> None:
    from moto.ssm.models import Parameter

    parameter = Parameter(
        account_id=backend.account_id,
        name=BASE_PARAMETER,
        value=base_image_id(backend.region_name),
        parameter_type="String",
        description=None,
        allowed_pattern=None,
        keyid=None,
        last_modified_date=datetime.now(UTC).timestamp(),
        version=1,
        data_type="aws:ec2:image",
    )
    backend._parameters[BASE_PARAMETER] = [parameter]  # noqa: SLF001


def _own_tags(self: Any) -> list[dict[str, str]]:
    """Moto walks all tags of the region for each resource it shows; this looks up the resource's own."""
    found = self.ec2_backend.tags.get(self.id) if self.id else None
    return _tag_list(found or {})


def _tag_list(tags: dict[str, str]) -> list[dict[str, str]]:
    return [{"key": key, "value": value} for key, value in tags.items()]


def apply(on_new_image: Callable[[str], None]) -> None:
    """`on_new_image` is told each base image's id, so that its (empty) folder can be made."""
    from moto.ec2.models import EC2Backend
    from moto.ec2.models.core import TaggedEC2Resource
    from moto.ec2.responses.spot_instances import SpotInstances
    from moto.ssm.models import SimpleSystemManagerBackend

    def register(backend: Any) -> None:
        _register_base(backend)
        on_new_image(base_image_id(backend.region_name))

    EC2Backend.__init__ = _after(EC2Backend.__init__, register)
    SimpleSystemManagerBackend.__init__ = _after(
        SimpleSystemManagerBackend.__init__, _add_base_parameter
    )
    SpotInstances.describe_spot_price_history = _spot_price_history
    SpotInstances._history_filters = _history_filters  # noqa: SLF001
    TaggedEC2Resource.get_tags = _own_tags
