"""What a process's environment says about its HTTP port: names, JSONP, access, TLS."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass, field

from mesaform.common.tls import TlsFiles, scheme, tls_files
from mesaform.http.access import Access, access_from
from mesaform.http.hosts import AcceptedHosts
from mesaform.http.port import Standbys

HOSTS_VARIABLE = "MESAFORM_HTTP_HOSTS"
"""Names and addresses of this machine, separated by commas: `http.host_names` of cluster.yaml and
the machine's public address."""
JSONP_VARIABLE = "MESAFORM_HTTP_JSONP"
"""`1`: `?jsonp=` is served."""
STANDBYS_VARIABLE = "MESAFORM_HTTP_STANDBYS"
"""A value of `Standbys`; absent: automatic."""


@dataclass(frozen=True, slots=True)
class HttpSettings:
    """Settings of a process's HTTP port.

    Without `access` operators need no credential. Without `tls` the port speaks plain HTTP.
    """

    hosts: AcceptedHosts = field(default_factory=AcceptedHosts)
    allows_jsonp: bool = False
    access: Access | None = None
    standbys: Standbys = Standbys.AUTOMATIC
    tls: TlsFiles | None = None

    @property
    def scheme(self) -> str:
        """The scheme of the URLs of this process, and of the other ports of its cluster."""
        return scheme(self.tls)


def http_settings(environment: Mapping[str, str], *own_names: str) -> HttpSettings:
    """The settings in an environment.

    The machine's host name is accepted, whole and without its domain.

    Args:
        environment: of the process.
        own_names: names and addresses under which the process announces itself.

    """
    host_name = socket.gethostname()
    configured = environment.get(HOSTS_VARIABLE, "").split(",")
    names = (host_name, host_name.partition(".")[0], *own_names, *configured)
    return HttpSettings(
        AcceptedHosts.of(name for name in names if name.strip()),
        allows_jsonp=environment.get(JSONP_VARIABLE) == "1",
        access=access_from(environment),
        standbys=Standbys(environment.get(STANDBYS_VARIABLE) or Standbys.AUTOMATIC),
        tls=tls_files(environment),
    )
