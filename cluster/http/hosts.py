"""Names under which a server may be called, and the origin of a request. Pure.

A page whose name is made to resolve to this machine (DNS rebinding) sends its own name in `Host`.
Only names that its author cannot give to this machine are therefore accepted.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass

LOCALHOST = "localhost"
_EC2_NAME = re.compile(
    r"(?:ip|ec2)-(\d+)-(\d+)-(\d+)-(\d+)"
    r"(?:\.ec2\.internal|\.[a-z0-9-]+\.compute\.internal"
    r"|\.compute-1\.amazonaws\.com|\.[a-z0-9-]+\.compute\.amazonaws\.com(?:\.cn)?)?"
)
"""Names that EC2 gives to an address (EC2 user guide, "Hostname types"). The zones are AWS's."""
_GENERATED = re.compile(r"(?<=-)[0-9a-f]{16}(?=\.elb\.)")
"""The part of a load balancer's name that AWS chooses (ELB API reference, `DNSName`)."""
_AUTHORITY = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^\[\]:@/?#\s]+)(?::(\d{1,5}))?")


def host_of(authority: str) -> str | None:
    """The host of `host[:port]`, in lower case and without a final dot; None if it is not valid."""
    match = _AUTHORITY.fullmatch(authority)
    if match is None or int(match.group(2) or 0) > 65535:
        return None
    return match.group(1).strip("[]").lower().removesuffix(".") or None


@dataclass(frozen=True, slots=True)
class AcceptedHosts:
    """The accepted hosts, besides loopback and the address on which a connection arrived.

    Attributes:
        names: names and addresses in lower case; `*` in a name stands for 16 hex digits, as in
            names of load balancers.
        with_subdomains: names below `localhost` and below each of `names` are accepted too, as
            virtual-hosted S3 buckets need them.

    """

    names: frozenset[str] = frozenset()
    with_subdomains: bool = False

    @classmethod
    def of(cls, names: Iterable[str], *, with_subdomains: bool = False) -> AcceptedHosts:
        """The hosts of these names or addresses; each may carry a port, which does not count."""
        hosts = (host_of(name.strip()) for name in names)
        return cls(frozenset(host for host in hosts if host), with_subdomains)

    def accept(self, authority: str, local_address: str) -> bool:
        """Whether `Host: authority` names this machine. Any port does.

        Args:
            authority: the header.
            local_address: the own address of the connection.

        """
        host = host_of(authority)
        if host is None:
            return False
        if host in {LOCALHOST, local_address} or host in self.names:
            return True
        return _is_loopback(host) or self._accepts_name(host, local_address)

    def _accepts_name(self, host: str, local_address: str) -> bool:
        if host.endswith(".localhost"):
            return True
        if _GENERATED.sub("*", host) in self.names and "*" not in host:
            return True
        match = _EC2_NAME.fullmatch(host)
        if match is not None and ".".join(match.groups()) in {local_address, *self.names}:
            return True
        return self.with_subdomains and any(host.endswith(f".{name}") for name in self.names)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_foreign_page(origin: str | None, fetch_site: str | None, authority: str) -> bool:
    """Whether a browser sent the request for a page of another origin.

    Args:
        origin: the header `Origin`; programs send none.
        fetch_site: the header `Sec-Fetch-Site`.
        authority: the accepted `Host`, to which the page's origin must be equal.

    """
    if fetch_site is not None and fetch_site.lower() not in {"same-origin", "none"}:
        return True
    return origin is not None and origin.partition("://")[2].lower() != authority.lower()
