"""Dry runs of the launches that the cluster makes: masters, each pool's machines, each template."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from mesaform.aws import dry_runs, subnet_routes
from mesaform.aws.subnet_routes import SubnetFacts
from mesaform.common.architecture import architecture_of
from mesaform.common.errors import CloudError, InsufficientCapacity, Retryable
from mesaform.doctor.finding import Finding, error, ok, warning
from mesaform.doctor.subject import Examination
from mesaform.topology.addresses import existing_subnet_filters
from mesaform.topology.names import Tag

CHECK = "dry runs"


def look(examination: Examination) -> list[Finding]:
    """Try the launches in the cluster's subnets, or before they exist in a default one."""
    region, spec = examination.region, examination.spec
    wanted = existing_subnet_filters(spec) or {f"tag:{Tag.CLUSTER}": [spec.name]}
    own = subnet_routes.subnets(region, wanted)
    places = own or subnet_routes.subnets(region, {"default-for-az": ["true"]})
    if not places:
        return [ok(CHECK, "not tried: no subnet exists before mesaform up")]
    findings = list(_fleets(examination, own))
    findings += _launches(examination, places)
    return findings or [ok(CHECK, "not tried: no image exists before mesaform up")]


def _launches(examination: Examination, places: Sequence[SubnetFacts]) -> Iterable[Finding]:
    """RunInstances of masters and of each pool's first type, as the stacks launch them."""
    spec, region, images = examination.spec, examination.region, examination.subject.images
    types = {"masters": spec.masters.type}
    types |= {f"pool {pool.name}": pool.types[0] for pool in spec.agents if pool.count}
    for who, name in types.items():
        image = images.get(architecture_of(name))
        if image is None:
            continue
        request = {
            "ImageId": image,
            "InstanceType": name,
            "SubnetId": places[0].subnet_id,
            "MetadataOptions": {"HttpTokens": "required", "HttpEndpoint": "enabled"},
            "TagSpecifications": [
                {
                    "ResourceType": "instance",
                    "Tags": [
                        {"Key": Tag.CLUSTER, "Value": spec.name},
                        {"Key": Tag.MANAGED_BY, "Value": "terraform"},
                    ],
                }
            ],
        }
        yield _tried(
            f"RunInstances of {name} for {who}",
            lambda request=request: dry_runs.try_launch(region, request),  # type: ignore[misc]  # bound now
        )


def _fleets(examination: Examination, own: Sequence[SubnetFacts]) -> Iterable[Finding]:
    """CreateFleet with each launch template in each subnet of the cluster."""
    region, cluster = examination.region, examination.spec.name
    if not own:
        return
    for template_id, name in dry_runs.launch_templates(region, cluster).items():
        is_spot = examination.subject.has_spot

        def attempt(template_id: str = template_id, is_spot: bool = is_spot) -> None:
            for subnet in own:
                dry_runs.try_fleet(region, template_id, subnet.subnet_id, is_spot=is_spot)

        yield _tried(f"CreateFleet with {name} in {len(own)} subnets", attempt)


def _tried(what: str, attempt: Callable[[], None]) -> Finding:
    try:
        attempt()
    except (Retryable, InsufficientCapacity) as fault:
        return warning(CHECK, f"{what}: {fault.what}", "try again later: mesaform doctor")
    except CloudError as fault:
        remedy = "allow or correct what it names; mesaform doctor --policy lists the rights"
        return error(CHECK, f"{what} would fail: {fault.what}", remedy)
    return ok(CHECK, f"{what} would succeed")
