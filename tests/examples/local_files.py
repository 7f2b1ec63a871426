"""Examples as cluster files of the local cloud. Pure."""

from __future__ import annotations

import yaml

NETS = {
    "minimal": 171,
    "private": 172,
    "existing-vpc": 173,
    "spot-arm": 174,
    "production": 175,
    "dev-with-ttl": 176,
}
"""Second octet of the loopback addresses of an example. The example of Pulumi has no Terraform."""


CERTIFICATE = ("certificate_arn", "host_name")


def local_cidr(name: str) -> str:
    """The network of an example's machines."""
    return f"127.{NETS[name]}.0.0/16"


def local_text(name: str, text: str) -> str:
    """The example with the target local: only what names parts of the real world differs.

    The local cloud has no ACM, so a load balancer with a certificate listens without TLS there.
    """
    spec = yaml.safe_load(text)
    spec["target"] = "local"
    network = spec.setdefault("network", {})
    network["operator_cidrs"] = ["127.0.0.0/8"]
    for field in CERTIFICATE:
        network.get("load_balancer", {}).pop(field, None)
    if network.get("mode") != "existing":
        network["cidr"] = local_cidr(name)
    return yaml.safe_dump(spec, sort_keys=False)
