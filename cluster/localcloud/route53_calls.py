"""Actions of Route 53, whose calls are named by method and path. Pure.

Source: Amazon Route 53 API reference, version 2013-04-01.
"""

from __future__ import annotations

import re

_VERSION = "/2013-04-01/"
_ACTIONS = (
    ("POST", r"hostedzone", "CreateHostedZone"),
    ("GET", r"hostedzone", "ListHostedZones"),
    ("GET", r"hostedzonesbyname", "ListHostedZonesByName"),
    ("GET", r"hostedzonesbyvpc", "ListHostedZonesByVPC"),
    ("GET", r"hostedzone/[^/]+", "GetHostedZone"),
    ("POST", r"hostedzone/[^/]+", "UpdateHostedZoneComment"),
    ("DELETE", r"hostedzone/[^/]+", "DeleteHostedZone"),
    ("GET", r"hostedzone/[^/]+/rrset", "ListResourceRecordSets"),
    ("POST", r"hostedzone/[^/]+/rrset", "ChangeResourceRecordSets"),
    ("GET", r"hostedzone/[^/]+/dnssec", "GetDNSSEC"),
    ("POST", r"hostedzone/[^/]+/associatevpc", "AssociateVPCWithHostedZone"),
    ("POST", r"hostedzone/[^/]+/disassociatevpc", "DisassociateVPCFromHostedZone"),
    ("GET", r"tags/[^/]+/[^/]+", "ListTagsForResource"),
    ("POST", r"tags/[^/]+/[^/]+", "ChangeTagsForResource"),
    ("POST", r"tags/[^/]+", "ListTagsForResources"),
    ("GET", r"change/[^/]+", "GetChange"),
)


def action_of(method: str, path: str) -> str:
    """The action of a call; empty if the product makes no such call."""
    route = path.removeprefix(_VERSION).rstrip("/")
    return next(
        (
            action
            for verb, pattern, action in _ACTIONS
            if verb == method and re.fullmatch(pattern, route)
        ),
        "",
    )
