"""Names and tags of a cluster's AWS resources."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # keeps pydantic out of the programs of a machine
    from mesaform.config.schema import ClusterSpec


class Tag:
    """Keys of EC2 tags. A resource is the cluster's if its tag `CLUSTER` is the cluster's name."""

    CLUSTER = "mesaform:cluster"
    ROLE = "mesaform:role"
    """`master`, `agent` or `builder`."""
    POOL = "mesaform:pool"
    MANAGED_BY = "mesaform:managed-by"
    """`terraform`, `autoscaler` or `bake`."""
    DEPLOYMENT = "mesaform:deployment"
    """The random id of the deployment that owns the resource (`deployment.json`)."""
    RECIPE = "mesaform:recipe"
    """On images: the digest of the recipe."""
    LAUNCH = "mesaform:launch"
    """On instances of the autoscaler: the token of the launch in the journal."""
    TEMPLATE_VERSION = "aws:ec2launchtemplate:version"
    """Set by EC2: the version of the launch template from which the instance was launched."""
    NAME = "Name"


def prefix(spec: ClusterSpec) -> str:
    """Start of the names of the cluster's resources."""
    return f"mesaform-{spec.name}"


def tags(spec: ClusterSpec, **extra: str) -> dict[str, str]:
    """Tags that every resource of the cluster carries.

    `extra` maps names of attributes of `Tag` to values.
    """
    return {Tag.CLUSTER: spec.name, **{getattr(Tag, key): value for key, value in extra.items()}}


def launch_template_name(cluster: str, pool: str) -> str:
    """Name of the launch template of a pool."""
    return f"mesaform-{cluster}-{pool}"


def spec_parameter_name(cluster: str) -> str:
    """Name of the SSM parameter with the spec as JSON, which the autoscaler reads.

    The agents stack owns it.
    """
    return f"/mesaform/{cluster}/spec"


def bucket_name(account_id: str, region: str) -> str:
    """Name of the bucket of an account and region.

    It holds the bundles of bakes, and the ledger and control objects of all clusters, and is kept
    when a cluster is removed.
    """
    return f"mesaform-{account_id}-{region}"


def bucket_account(bucket: str) -> str:
    """The account in a bucket's name (`bucket_name`); empty for another bucket."""
    start, _, rest = bucket.partition("-")
    account_id = rest.partition("-")[0]
    return account_id if start == "mesaform" and account_id.isdigit() else ""
