"""The file `endpoint.json`, with which clients find the running daemon. Needs no aiohttp."""

from __future__ import annotations

import msgspec

from mesaform.common.files import SHARED_FILE_MODE, write_atomically
from mesaform.common.record_files import read_record, write_record
from mesaform.common.records import Codec, Unreadable
from mesaform.common.set_aside import SetAsideLog
from mesaform.localcloud.layout import DEFAULT_HOST, Layout

KIND = "local-endpoint"


class Endpoint(msgspec.Struct, frozen=True):
    """Where the daemon answers, and its process."""

    url: str
    pid: int


ENDPOINT = Codec("localcloud.endpoint", Endpoint)


def write_endpoint(layout: Layout, endpoint: Endpoint) -> None:
    """Write the file and the daemon's pid."""
    write_atomically(layout.pid, f"{endpoint.pid}\n".encode(), mode=SHARED_FILE_MODE)
    write_record(layout.endpoint, ENDPOINT, endpoint, mode=SHARED_FILE_MODE)


def read_endpoint(layout: Layout) -> Endpoint | None:
    """The daemon of a locked folder; None while it is starting.

    A file that cannot be read is set aside, and written again from the files `pid` and `port`.
    """
    try:
        known = read_record(layout.endpoint, ENDPOINT, KIND, SetAsideLog())
    except OSError:
        return None
    if isinstance(known, Unreadable):
        return _rebuild(layout)
    return known


def _rebuild(layout: Layout) -> Endpoint | None:
    try:
        pid, port = (int(path.read_text()) for path in (layout.pid, layout.port))
        endpoint = Endpoint(f"http://{DEFAULT_HOST}:{port}", pid)
        write_endpoint(layout, endpoint)
    except (OSError, ValueError):
        return None
    return endpoint
