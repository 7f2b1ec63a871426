"""The files of a page and the headers they are served with. Which server sends them, and when, is not here."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_HERE = Path(__file__).parent
_TYPES = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}


@dataclass(frozen=True, slots=True)
class Asset:
    body: bytes
    content_type: str


def load(page: str) -> dict[str, Asset]:
    """The files of a page (a folder beside this file) by their path on the server: "" is the page itself, the rest is below `static/`."""
    found: dict[str, Asset] = {}
    for prefix, folder in (("static/", _HERE / page), ("static/common/", _HERE / "common")):
        for path in sorted(folder.iterdir()):
            if path.suffix in _TYPES:
                found[prefix + path.name] = Asset(path.read_bytes(), _TYPES[path.suffix])
    return {"": found["static/index.html"], **found}


def headers(peers: Iterable[str] = ()) -> dict[str, str]:
    """What goes with every file: nothing from elsewhere is loaded. Of `peers` (origins) a page may ask whether they can take over."""
    sources = " ".join(["'self'", *peers])
    return {
        "Cache-Control": "no-cache",
        "Content-Security-Policy": f"default-src 'self'; connect-src {sources}; frame-ancestors 'none'; base-uri 'none'",
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
    }


def peers_of(zk: str, port: int) -> list[str]:
    """The origins of the servers on this port beside the ensemble of a `zk://` URL: every master of a cluster runs a ZooKeeper."""
    hosts = zk.removeprefix("zk://").partition("/")[0].split(",")
    return [f"http://{host.rpartition(':')[0] or host}:{port}" for host in hosts if host]
