"""Settings of services, from the environment variables of Marathon."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mesaform.common.errors import BadInput
from mesaform.http import HttpSettings, http_settings
from mesaform.mesos.credential import Credential, credential_from
from mesaform.placement.preference import Strategy
from mesaform.zookeeper.access import Credentials, read_zk_url

ANY_ADDRESS = "0.0.0.0"
_ZK_VARIABLES = ("MARATHON_MASTER", "MARATHON_ZK")


@dataclass(frozen=True, slots=True)
class BackupAccount:
    """Whose snapshots this server writes, and the region of the account's bucket."""

    cluster: str
    deployment: str
    region: str

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> BackupAccount | None:
        """Read the variables; None where no cluster or region is named."""
        cluster, region = environ.get("MESAFORM_CLUSTER"), environ.get("AWS_REGION")
        if not cluster or not region:
            return None
        return cls(cluster, environ.get("MESAFORM_DEPLOYMENT", ""), region)


@dataclass(frozen=True, slots=True)
class Settings:
    """Addresses of this server, of its state and of the engine.

    `master` and `zk` are `zk://` URLs: of the engine's election, and of the state of services.
    `hostname` is the name or address under which others reach this server. `zk_credentials` own the
    state. `credential` proves the framework's principal, `task_user` is the user of apps that name
    none; empty: the framework's. Without `backup` there are no snapshots. `placement` chooses the
    agents of instances.
    """

    master: str
    zk: str
    http_address: str
    http_port: int
    hostname: str
    http: HttpSettings = field(default_factory=HttpSettings)
    zk_credentials: Credentials | None = None
    credential: Credential | None = None
    task_user: str = ""
    backup: BackupAccount | None = None
    placement: Strategy = "spread"

    @property
    def url(self) -> str:
        """The base URL under which others reach this server."""
        return f"{self.http.scheme}://{self.hostname}:{self.http_port}"

    @property
    def own_zookeeper(self) -> tuple[str, int] | None:
        """Host and port of the ensemble's member on this machine; None if there is none."""
        hosts = self.zk.partition("://")[2].partition("/")[0].rpartition("@")[2].split(",")
        for host, _, port in (item.rpartition(":") for item in hosts):
            if host in {self.http_address, self.hostname} and port.isdigit():
                return host, int(port)
        return None

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Settings:
        """Read the `MARATHON_*` variables.

        Raises:
            BadInput: a variable is missing or not valid.

        """
        missing = [name for name in _ZK_VARIABLES if not environ.get(name)]
        if missing:
            raise BadInput(
                f"{' and '.join(missing)} not set",
                where="environment",
                fix="set to zk://host:port,…/path",
            )
        master, zk = (read_zk_url(environ[name]) for name in _ZK_VARIABLES)
        address = environ.get("MARATHON_HTTP_ADDRESS", ANY_ADDRESS)
        default_hostname = "localhost" if address == ANY_ADDRESS else address
        hostname = environ.get("MARATHON_HOSTNAME") or default_hostname
        return cls(
            master.text,
            zk.text,
            address,
            _parse_port(environ.get("MARATHON_HTTP_PORT", "8080")),
            hostname,
            http_settings(environ, address, hostname),
            zk.credentials,
            credential_from(environ, "MARATHON_MESOS_AUTHENTICATION_"),
            environ.get("MARATHON_MESOS_USER", ""),
            BackupAccount.from_environment(environ),
            "pack" if environ.get("MESAFORM_PLACEMENT") == "pack" else "spread",
        )


def _parse_port(text: str) -> int:
    if not text.isdigit() or not 0 < int(text) < 65536:
        raise BadInput(f"{text!r} is not a port", where="MARATHON_HTTP_PORT")
    return int(text)
