"""What every account has: base images and their public SSM parameters, types, spot prices.

`prepare` must run before moto is imported: it decides what moto loads.
"""

from __future__ import annotations

import hashlib
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import wraps

from mesaform.aws.pricing import price_book
from mesaform.common.architecture import ARCHITECTURES, X86_64, Architecture
from mesaform.localcloud.moto_patches.moto_types import (
    Ec2Backend,
    Ec2Response,
    MotoObject,
    Parameters,
    Tags,
)

_DEBIAN_NAMES: Mapping[Architecture, str] = {"x86_64": "amd64", "arm64": "arm64"}
BASE_PARAMETERS: Mapping[Architecture, str] = {
    architecture: f"/aws/service/debian/release/12/latest/{name}"
    for architecture, name in _DEBIAN_NAMES.items()
}
BASE_NAMES: Mapping[Architecture, str] = {
    architecture: f"debian-12-{name}-20260901-2222" for architecture, name in _DEBIAN_NAMES.items()
}
BASE_OWNER = "000000000012"
"""An account that does not exist, so that the base image is never one of the account's own."""
_OFFERINGS = "instance_type_offerings"
SPOT_PRICE_STEP_S = 600.0
"""How often a spot price changes."""
MAX_SPOT_PRICE_STEPS = 144
"""The longest spot price history, in changes: a day."""
UNKNOWN_TYPE_USD_PER_HOUR = 1000.0
"""The price of an instance type that neither the price book nor moto has."""


def prepare() -> None:
    """Set what moto reads on import, and load each region's instance types only when asked for.

    No setting of the operator's reaches moto's own boto3: every AWS variable is removed.
    """
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        del os.environ[name]
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
        with _parsed_once():
            from moto.ec2.models import instance_types
    finally:
        utils.load_resource = load
    for location in instance_types.INSTANCE_TYPE_OFFERINGS:
        instance_types.INSTANCE_TYPE_OFFERINGS[location] = _Regions(location, load)


@contextmanager
def _parsed_once() -> Iterator[None]:
    """Each of botocore's files is read once, though moto makes three sessions on import."""
    from botocore.loaders import JSONFileLoader

    load_file = JSONFileLoader.load_file
    parsed: dict[str, object] = {}

    def load_once(self: JSONFileLoader, file_path: str) -> object:
        if file_path not in parsed:
            parsed[file_path] = load_file(self, file_path)
        return parsed[file_path]

    JSONFileLoader.load_file = load_once  # type: ignore[method-assign]
    try:
        yield
    finally:
        JSONFileLoader.load_file = load_file  # type: ignore[method-assign]


Offerings = list[dict[str, str]]


class _Regions(dict[str, Offerings]):
    """Offerings by region, read when they are first asked for."""

    def __init__(self, location: str, load: Callable[[str], Offerings]) -> None:
        super().__init__()
        self._location = location
        self._load = load

    def __missing__(self, region: str) -> Offerings:
        for suffix in (".json", ".json.gz"):
            path = f"ec2/resources/{_OFFERINGS}/{self._location}/{region}{suffix}"
            try:
                offerings = self._load(path)
            except FileNotFoundError:
                continue
            for offering in offerings:
                offering["LocationType"] = self._location
            self[region] = offerings
            return offerings
        raise KeyError(region)

    def get(self, region: str, default: object = None) -> MotoObject:
        """The region's offerings; `dict.get` does not call `__missing__`."""
        try:
            return self[region]
        except KeyError:
            return default


def base_image_id(region: str, architecture: Architecture = X86_64) -> str:
    """The id of a base image in a region: the same on every start."""
    name = BASE_NAMES[architecture]
    return "ami-" + hashlib.sha256(f"{name}/{region}".encode()).hexdigest()[:17]


def spot_share(instance_type: str, zone: str, at: float) -> float:
    """The spot price as a share of the on-demand price at a time, 0.30 to 0.40.

    It depends on type and zone and moves slowly. The same time always gives the same share.
    """
    seed = hashlib.sha256(f"{instance_type}/{zone}".encode()).digest()
    period_s = 6 * 3600 + seed[1] * 300
    step = at // SPOT_PRICE_STEP_S * SPOT_PRICE_STEP_S
    wave = math.sin(math.tau * (step / period_s + seed[2] / 256))
    return 0.325 + 0.05 * seed[0] / 255 + 0.025 * wave


def usd_per_hour(instance_type: str, zone: str, capacity: str, at: float | None = None) -> float:
    """The price of an offering, by the product's price book or its estimate."""
    price = price_book.usd_per_hour(instance_type)
    if price is None:
        price = _estimate(instance_type)
    if capacity != "spot":
        return price
    return price * spot_share(instance_type, zone, time.time() if at is None else at)


def _estimate(instance_type: str) -> float:
    from moto.ec2.models.instance_types import INSTANCE_TYPES

    described = INSTANCE_TYPES.get(instance_type)
    if not described:
        return UNKNOWN_TYPE_USD_PER_HOUR
    return price_book.estimate(
        described["VCpuInfo"]["DefaultVCpus"], described["MemoryInfo"]["SizeInMiB"]
    )


def _spot_price_history(self: Ec2Response) -> MotoObject:
    from moto.core.responses import ActionResult

    offered = self.ec2_backend.describe_spot_price_history(
        self._get_param("InstanceTypes", []), _history_filters(self)
    )
    now = time.time()
    history = [
        _spot_price(item["InstanceType"], item["Location"], at)
        for item in offered
        for at in _changes(self._get_param("StartTime"), now)
    ]
    return ActionResult({"SpotPriceHistory": history})


def _spot_price(instance_type: str, zone: str, at: float) -> Parameters:
    return {
        "InstanceType": instance_type,
        "ProductDescription": "Linux/UNIX",
        "SpotPrice": f"{usd_per_hour(instance_type, zone, 'spot', at):.6f}",
        "AvailabilityZone": zone,
        "Timestamp": datetime.fromtimestamp(at, UTC),
    }


def _changes(start: datetime | str | None, now: float) -> list[float]:
    """When prices changed since `start`, newest first, and the change before it.

    Without a start only the last change.
    """
    newest = now // SPOT_PRICE_STEP_S * SPOT_PRICE_STEP_S
    if isinstance(start, str):
        start = datetime.fromisoformat(start) if start else None
    since = now if start is None else start.timestamp()
    steps = max(0, min(MAX_SPOT_PRICE_STEPS, math.ceil((newest - since) / SPOT_PRICE_STEP_S)))
    return [newest - step * SPOT_PRICE_STEP_S for step in range(steps + 1)]


def _history_filters(self: Ec2Response) -> dict[str, list[str]]:
    filters = dict(self._filters_from_querystring())
    filters.pop("product-description", None)
    if zone := self._get_param("AvailabilityZone"):
        filters["availability-zone"] = [zone]
    return filters


def _register_base(backend: Ec2Backend, architecture: Architecture) -> None:
    from moto.ec2.models.amis import Ami

    image_id, name = base_image_id(backend.region_name, architecture), BASE_NAMES[architecture]
    backend.amis[image_id] = Ami(
        backend,
        image_id,
        name=name,
        description="Debian 12 (20260901-2222)",
        owner_id=BASE_OWNER,
        public=True,
        virtualization_type="hvm",
        architecture=architecture,
        root_device_type="ebs",
        root_device_name="/dev/xvda",
        hypervisor="xen",
        region_name=f"{backend.region_name}a",
        image_location=f"amazon/{name}",
    )


def _add_base_parameters(backend: MotoObject) -> None:
    for architecture, name in BASE_PARAMETERS.items():
        value = base_image_id(backend.region_name, architecture)
        _add_base_parameter(backend, name, value)


def _add_base_parameter(backend: MotoObject, name: str, value: str) -> None:
    from moto.ssm.models import Parameter

    parameter = Parameter(
        account_id=backend.account_id,
        name=name,
        value=value,
        parameter_type="String",
        description=None,
        allowed_pattern=None,
        keyid=None,
        last_modified_date=datetime.now(UTC).timestamp(),
        version=1,
        data_type="aws:ec2:image",
    )
    backend._parameters[name] = [parameter]  # noqa: SLF001 - moto has no setter


def _extended(
    init: Callable[..., None], extension: Callable[[MotoObject], None]
) -> Callable[..., None]:
    """A constructor that calls `extension` with the new object at its end."""

    @wraps(init)
    def initialise(self: object, *args: object, **kwargs: object) -> None:
        init(self, *args, **kwargs)
        extension(self)

    return initialise


def _own_tags(self: MotoObject) -> list[Tags]:
    """The resource's tags by look-up; moto walks all tags of the region for each resource."""
    tags = self.ec2_backend.tags.get(self.id) if self.id else None
    return [{"key": key, "value": value} for key, value in (tags or {}).items()]


def apply(on_new_image: Callable[[str], None]) -> None:
    """Patch moto in this process. `on_new_image` gets the id of each base image."""
    from moto.ec2.models import EC2Backend
    from moto.ec2.models.core import TaggedEC2Resource
    from moto.ec2.responses.spot_instances import SpotInstances
    from moto.ssm.models import SimpleSystemManagerBackend

    from mesaform.localcloud.moto_patches import account

    def register(backend: Ec2Backend) -> None:
        account.give_default_gateway(backend)
        for architecture in ARCHITECTURES:
            _register_base(backend, architecture)
            on_new_image(base_image_id(backend.region_name, architecture))

    EC2Backend.__init__ = _extended(EC2Backend.__init__, register)
    SimpleSystemManagerBackend.__init__ = _extended(
        SimpleSystemManagerBackend.__init__, _add_base_parameters
    )
    SpotInstances.describe_spot_price_history = _spot_price_history
    TaggedEC2Resource.get_tags = _own_tags
