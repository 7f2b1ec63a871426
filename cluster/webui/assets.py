"""Files of the web pages and the HTTP headers to serve them with. Standard library only."""

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
    """Content of one file."""

    body: bytes
    content_type: str


def load(page: str) -> dict[str, Asset]:
    """The files of a page, by path on the server.

    `page` is a folder beside this file. The path of the page itself is empty; the other files are
    below `static/`.
    """
    files: dict[str, Asset] = {}
    for prefix, folder in (("static/", _HERE / page), ("static/common/", _HERE / "common")):
        for path in sorted(folder.iterdir()):
            if path.suffix in _TYPES:
                files[prefix + path.name] = Asset(path.read_bytes(), _TYPES[path.suffix])
    return {"": files["static/index.html"], **files}


def headers(peers: Iterable[str] = ()) -> dict[str, str]:
    """Headers of every file: a page loads nothing from other origins.

    `peers` are origins of other masters, which a page asks when its server is gone.
    """
    sources = " ".join(["'self'", *peers])
    policy = f"default-src 'self'; connect-src {sources}; frame-ancestors 'none'; base-uri 'none'"
    return {
        "Cache-Control": "no-cache",
        "Content-Security-Policy": policy,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
    }


def peers_of(zk: str, port: int, scheme: str = "http") -> list[str]:
    """Origins of the servers on this port on every host of a `zk://` URL.

    Every master of a cluster runs a ZooKeeper server, so its hosts are the masters.
    """
    hosts = zk.removeprefix("zk://").partition("/")[0].split(",")
    return [f"{scheme}://{host.rpartition(':')[0] or host}:{port}" for host in hosts if host]
