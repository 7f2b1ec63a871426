"""How services is set up: Marathon's own environment variables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mesaform.common.errors import BadInput
from mesaform.zookeeper.session import split_zk_url


@dataclass(frozen=True, slots=True)
class Settings:
    """Where to listen, where the state is, and how the engine's leader is found."""

    master: str  # zk://… of the engine's masters
    zk: str  # zk://… of the own state
    http_address: str
    http_port: int
    hostname: str  # what others call this server

    @property
    def url(self) -> str:
        """Where others find this server."""
        return f"http://{self.hostname}:{self.http_port}"

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> Settings:
        """Read `MARATHON_*`.

        Raises:
            BadInput: one is missing or wrong.

        """
        missing = [name for name in ("MARATHON_MASTER", "MARATHON_ZK") if not environ.get(name)]
        if missing:
            raise BadInput(
                f"{' and '.join(missing)} not set",
                where="environment",
                fix="set to zk://host:port,…/path",
            )
        for name in ("MARATHON_MASTER", "MARATHON_ZK"):
            split_zk_url(environ[name])
        port = environ.get("MARATHON_HTTP_PORT", "8080")
        if not port.isdigit() or not 0 < int(port) < 65536:
            raise BadInput(f"{port!r} is not a port", where="MARATHON_HTTP_PORT")
        address = environ.get("MARATHON_HTTP_ADDRESS", "0.0.0.0")
        hostname = environ.get("MARATHON_HOSTNAME") or (
            address if address != "0.0.0.0" else "localhost"
        )
        return cls(environ["MARATHON_MASTER"], environ["MARATHON_ZK"], address, int(port), hostname)
