"""Which addresses the autoscaler may ask for a framework's demand. Pure.

A framework chooses its `webui_url` itself. Without limits it could make a master call the metadata
service, a port of this machine or of another master (server-side request forgery). A URL of
cluster.yaml is the operator's choice; the metadata service stays forbidden for it as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

from yarl import URL

from mesaform.autoscaler.observation.adapters.answers import AdapterError
from mesaform.topology.ports import Port

SCHEMES = frozenset({"http", "https"})
AWS_IPV6_SERVICES = IPv6Network("fd00:ec2::/32")
"""Metadata, DNS and time services of EC2; those of IPv4 are link-local."""

WITH_IPV4 = (
    IPv6Network("64:ff9b::/96"),
    IPv6Network("64:ff9b:1::/48"),
    IPv6Network("::/96"),
    IPv6Network("::ffff:0:0:0/96"),
)
"""Networks whose addresses end with an IPv4 address (RFC 6052, 8215, 4291, 2765)."""

SHARED = frozenset({Port.SERVICES})
"""Ports of the cluster that frameworks use as well."""

LONGEST_URL = 2048


@dataclass(frozen=True, slots=True)
class Guard:
    """What may be asked.

    `own_addresses` are the masters', `own_ports` the cluster's: no framework has its API there. A
    port that no framework uses is not asked at any address: masters have further ones, such as
    those of load balancers. Loopback is for the local target, where machines are processes of this
    host.
    """

    own_addresses: frozenset[str]
    own_ports: frozenset[int]
    allows_loopback: bool = False

    def require_url(self, text: str, *, is_configured: bool) -> URL:
        """The URL, if it may be asked as far as that is known before its name is resolved.

        Raises:
            AdapterError: it may not.

        """
        url = _parsed(text)
        if url.user is not None or url.password is not None:
            raise AdapterError("a URL with a user or a password is not asked")
        literal = _literal(url.host or "")
        if literal is not None:
            self.require_address(str(literal), url.port or 0, is_configured=is_configured)
        return url

    def require_address(self, address: str, port: int, *, is_configured: bool) -> None:
        """Check the address of a name.

        Raises:
            AdapterError: it may not be asked.

        """
        parsed = _address(address)
        if parsed is None or _is_never_asked(parsed):
            raise AdapterError(f"{address} is not an address of a framework")
        if is_configured:
            return
        if self._is_own(str(parsed), port):
            raise AdapterError(f"{address}:{port} is a port of this cluster")
        if parsed.is_loopback and not self._is_loopback_allowed(port):
            raise AdapterError(f"{address}:{port} is on this master; configure it as url to ask it")

    def _is_own(self, address: str, port: int) -> bool:
        """Whether a port is the cluster's."""
        return port in self.own_ports and (address in self.own_addresses or port not in SHARED)

    def _is_loopback_allowed(self, port: int) -> bool:
        return self.allows_loopback and port not in self.own_ports


def same_host(first: URL, second: URL) -> bool:
    """Whether a redirect stays on its host."""
    return (first.host or "").lower() == (second.host or "").lower()


def _parsed(text: str) -> URL:
    try:
        url = URL(text) if len(text) <= LONGEST_URL else URL()
        port = url.port
    except (ValueError, TypeError):
        raise AdapterError("its URL is not one") from None
    if url.scheme not in SCHEMES or not url.host or not port:
        raise AdapterError("its URL is not one of http or https")
    return url


def _literal(host: str) -> IPv4Address | IPv6Address | None:
    """The address that a URL's host is; None for a name that has to be resolved."""
    return _address("127.0.0.1" if host.lower().rstrip(".") == "localhost" else host)


def _address(host: str) -> IPv4Address | IPv6Address | None:
    """The address that a text is, an IPv4 address inside an IPv6 one included."""
    try:
        address = ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        return None
    return _inner(address) if isinstance(address, IPv6Address) else address


def _inner(address: IPv6Address) -> IPv4Address | IPv6Address:
    """The IPv4 address that a translator or a tunnel makes of an address, or the address itself."""
    if address.is_loopback or address.is_unspecified:
        return address
    if any(address in network for network in WITH_IPV4):
        return IPv4Address(int(address) & 0xFFFFFFFF)
    teredo = address.teredo
    return address.ipv4_mapped or address.sixtofour or (teredo[1] if teredo else address)


def _is_never_asked(address: IPv4Address | IPv6Address) -> bool:
    """Whether an address is the metadata service, or none of one machine."""
    if isinstance(address, IPv6Address) and address in AWS_IPV6_SERVICES:
        return True
    return (
        address.is_link_local
        or address.is_multicast
        or address.is_unspecified
        or (isinstance(address, IPv4Address) and address.is_reserved)
    )
