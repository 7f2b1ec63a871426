"""What differs from port to port: limits, format of errors, checks of browsers, credentials."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from mesaform.common.tls import TlsFiles
from mesaform.http.access import PortAccess
from mesaform.http.errors import ErrorRenderer, plain_text


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one port. docs/operations.md lists the values of each port.

    Attributes:
        line_bytes: the request line.
        field_bytes: the name or the value of one header.
        header_count: headers of a request.
        header_bytes: all names and values of the headers of a request.
        body_bytes: a body, as it is sent and after decompression.
        json_elements: members of objects and items of arrays, in the whole document.
        json_depth: arrays and objects inside each other.
        header_s: from the first byte of a request to the end of its headers.
        stall_s: without a byte of a body that is still incomplete.
        body_s: from the first to the last byte of a body.
        idle_s: a connection without a request.
        blocked_s: an answer that the peer does not read. Streams have a bounded queue instead.
        peer_connections: connections of one peer address. A further one replaces the oldest that
            waits for its peer; it is refused if all of them have requests under way.
        connections: connections of all peers together; the process's limit of open files counts
            as well.

    """

    line_bytes: int = 8190
    field_bytes: int = 8190
    header_count: int = 100
    header_bytes: int = 64 * 1024
    body_bytes: int = 1024 * 1024
    json_elements: int = 100_000
    json_depth: int = 64
    header_s: float = 10.0
    stall_s: float = 10.0
    body_s: float = 120.0
    idle_s: float = 60.0
    blocked_s: float = 60.0
    peer_connections: int = 1000
    connections: int = 8000


class Standbys(StrEnum):
    """What standbys do with requests for the leader (`http.standbys` of cluster.yaml).

    `automatic` redirects clients that called by a private address, and passes others' requests on.
    """

    AUTOMATIC = "automatic"
    REDIRECT = "redirect"
    PROXY = "proxy"


@dataclass(frozen=True, slots=True)
class HttpPort:
    """One listening port.

    Attributes:
        name: in logs and in the label of `mesaform_unhandled_errors_total`; the port's number, or
            a word if the number varies.
        limits: the port's bounds.
        render_error: the format of error bodies.
        allows_jsonp: whether `?jsonp=` is served.
        checks_host: whether a request must name this machine (`hosts.AcceptedHosts`).
        checks_origin: whether changes that a page of another origin makes a browser send are
            refused.
        cancels_handlers: whether a handler is cancelled when its client disconnects.
        access: which requests need an operator's credential; None: no request does.
        standbys: what the server does with requests for the leader while it does not lead.
        tls: the machine's TLS files; None: the port speaks plain HTTP.

    """

    name: str
    limits: Limits = field(default_factory=Limits)
    render_error: ErrorRenderer = plain_text
    allows_jsonp: bool = False
    checks_host: bool = True
    checks_origin: bool = True
    cancels_handlers: bool = False
    access: PortAccess | None = None
    standbys: Standbys = Standbys.AUTOMATIC
    tls: TlsFiles | None = None
