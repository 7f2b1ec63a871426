"""Names and tags of a cluster's AWS resources."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mesaform.common.architecture import X86_64, Architecture

if TYPE_CHECKING:  # keeps pydantic out of the programs of a machine
    from mesaform.config.schema import ClusterSpec


STATE_ROOT = "_terraform/"
"""Where the account's bucket has Terraform's states of all clusters."""


class Tag:
    """Keys of EC2 tags. A resource is the cluster's if its tag `CLUSTER` is the cluster's name."""

    CLUSTER = "mesaform:cluster"
    ROLE = "mesaform:role"
    """`master`, `agent` or `builder`."""
    POOL = "mesaform:pool"
    MANAGED_BY = "mesaform:managed-by"
    """`terraform`, `autoscaler` or `bake`."""
    REGION = "mesaform:region"
    """The region of the cluster: IAM's resources are global."""
    DEPLOYMENT = "mesaform:deployment"
    """The random id of the deployment that owns the resource (`deployment.json`)."""
    RECIPE = "mesaform:recipe"
    """On images: the digest of the recipe."""
    LAUNCH = "mesaform:launch"
    """On instances of the autoscaler: the token of the launch in the journal."""
    TEMPLATE_VERSION = "aws:ec2launchtemplate:version"
    """Set by EC2: the version of the launch template from which the instance was launched."""
    ARCHITECTURE = "mesaform:architecture"
    """On launch templates: the architecture of their image. x86_64 if it is absent."""
    BASE_IMAGE = "mesaform:base-image"
    """On images: the base image that they were built on."""
    NAME = "Name"


SERVICE_SUBNET = "services"
"""Value of `Tag.ROLE` of subnets with gateways and endpoints, in which no machine is launched."""


def prefix(spec: ClusterSpec) -> str:
    """Start of the names of the cluster's resources."""
    return f"mesaform-{spec.name}"


def tags(spec: ClusterSpec, **extra: str) -> dict[str, str]:
    """Tags that every resource of the cluster carries.

    `extra` maps names of attributes of `Tag` to values.
    """
    own = {Tag.CLUSTER: spec.name, Tag.REGION: spec.region}
    return {**own, **{getattr(Tag, key): value for key, value in extra.items()}}


def template_key(pool: str, architecture: Architecture) -> str:
    """Key of a pool's launch template for an architecture; the pool's name for x86_64.

    Names of pools have no dot, so keys of different pools differ.
    """
    return pool if architecture == X86_64 else f"{pool}.{architecture}"


def launch_template_name(cluster: str, pool: str, architecture: Architecture = X86_64) -> str:
    """Name of the launch template of a pool for an architecture.

    No name has a slash, so those of `a` and its pool `b-c` and of `a-b` and its pool `c` differ.
    """
    return f"mesaform/{cluster}/{template_key(pool, architecture)}"


def load_balancer_name(cluster: str) -> str:
    """Name of the masters' load balancer: at most 32 characters."""
    return f"{cluster}-masters"


def load_balancer_host_pattern(cluster: str, region: str) -> str:
    """The DNS names that AWS may give to the load balancer; `*` stands for 16 hex digits."""
    suffix = "com.cn" if region.startswith("cn-") else "com"
    return f"{load_balancer_name(cluster)}-*.elb.{region}.amazonaws.{suffix}"


def target_group_name(cluster: str, port: int) -> str:
    """Name of the load balancer's target group of a port."""
    return f"{cluster}-{port}"


def flow_log_group_name(cluster: str) -> str:
    """Name of the log group of the VPC's flow logs."""
    return f"/mesaform/{cluster}/flow-logs"


def spec_parameter_name(cluster: str) -> str:
    """Name of the SSM parameter with the spec as JSON, which the autoscaler reads.

    The agents stack owns it.
    """
    return f"/mesaform/{cluster}/spec"


def framework_parameter_name(cluster: str, name: str) -> str:
    """Name of the SSM parameter with a credential for a framework's API; an operator makes it."""
    return f"/mesaform/{cluster}/frameworks/{name}"


def access_parameter_name(cluster: str) -> str:
    """Name of the SSM parameter (a SecureString) with the access document, which masters read.

    `mesaform up` writes it.
    """
    return f"/mesaform/{cluster}/access"


def authority_parameter_name(cluster: str) -> str:
    """Name of the SSM parameter (a SecureString) with the cluster's CA, which masters read.

    `mesaform up` writes it.
    """
    return f"/mesaform/{cluster}/ca"


def bucket_name(account_id: str, region: str) -> str:
    """Name of the bucket of an account and region.

    It holds the bundles of bakes, and the ledger and control objects of all clusters, and is kept
    when a cluster is removed.
    """
    return f"mesaform-{account_id}-{region}"


def state_prefix(cluster: str) -> str:
    """Where the bucket has Terraform's states of a cluster, and the deployment's record.

    No name of a cluster has an underscore, so machines' rights to `<cluster>/` never reach it.
    """
    return f"{STATE_ROOT}{cluster}/"


def bucket_account(bucket: str) -> str:
    """The account in a bucket's name (`bucket_name`); empty for another bucket."""
    start, _, rest = bucket.partition("-")
    account_id = rest.partition("-")[0]
    return account_id if start == "mesaform" and account_id.isdigit() else ""
