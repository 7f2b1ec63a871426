"""The user that a connection over loopback belongs to: sock_diag(7), or `/proc/net/tcp` (proc(5)).

The kernel finds one connection among thousands by itself. A kernel without that interface is read
by its table, which takes milliseconds on a busy host.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from pathlib import Path

TABLE = Path("/proc/net/tcp")
_UID, _INODE = 4, 6
"""Fields of a line after both addresses: user and inode."""

_End = tuple[str, int]
"""Address and port."""
_NETLINK_SOCK_DIAG, _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST = 4, 20, 1
_HEADER = struct.Struct("=IHHII")
"""nlmsghdr: length, type, flags, number, pid."""
_REQUEST = struct.Struct("=BBxxI")
"""inet_diag_req_v2 without the connection: family, protocol, states."""
_ANSWER = struct.Struct("=BBxx48sIIIII")
"""inet_diag_msg: family, state, connection, timer, both queues, user, inode."""
_ALL_STATES = 0xFFFF_FFFF
_ENDS_LENGTH = 36
"""Of inet_diag_sockid: both ports and both addresses; interface and cookie follow."""
_ANY_INTERFACE_AND_COOKIE = bytes(4) + b"\xff" * 8
_ANSWER_BYTES = 1024
_ANSWER_TIMEOUT_S = 1.0


def peer_user(own: _End, peer: _End) -> int | None:
    """The user id of the process at the other end; None if it has closed the connection.

    Args:
        own: address and port of this end.
        peer: address and port of the other end, which is on this host.

    """
    with contextlib.suppress(OSError, LookupError, struct.error):
        return ask_kernel(own, peer)
    return read_table(own, peer)


def ask_kernel(own: _End, peer: _End) -> int | None:
    """As `peer_user`.

    Raises:
        LookupError: the kernel lists no such connection, or does not answer such questions.
        OSError: likewise.

    """
    ends = struct.pack("!HH4s12x4s12x", peer[1], own[1], _packed(peer), _packed(own))
    body = _REQUEST.pack(socket.AF_INET, socket.IPPROTO_TCP, _ALL_STATES)
    message = body + ends + _ANY_INTERFACE_AND_COOKIE
    length = _HEADER.size + len(message)
    header = _HEADER.pack(length, _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as kernel:
        kernel.settimeout(_ANSWER_TIMEOUT_S)
        kernel.sendto(header + message, (0, 0))
        answer = kernel.recv(_ANSWER_BYTES)
    if _HEADER.unpack_from(answer)[1] != _SOCK_DIAG_BY_FAMILY:
        raise LookupError(own)
    _, _, connection, _, _, _, user, inode = _ANSWER.unpack_from(answer, _HEADER.size)
    if connection[:_ENDS_LENGTH] != ends:  # the listening socket of that port
        raise LookupError(own)
    # A connection that its process closed has no inode, and stands under user 0.
    return int(user) if inode else None


def _packed(end: _End) -> bytes:
    return socket.inet_aton(end[0])


def read_table(own: _End, peer: _End) -> int | None:
    """As `peer_user`, from the table of all connections."""
    # One search in the whole table: a busy host has thousands of lines.
    ends = f" {_hexadecimal(peer)} {_hexadecimal(own)} "
    _, is_listed, rest = TABLE.read_text("ascii").partition(ends)
    if not is_listed:
        return None
    fields = rest.partition("\n")[0].split()
    # A connection that its process closed has no inode, and stands under user 0.
    return int(fields[_UID]) if fields[_INODE] != "0" else None


def _hexadecimal(end: _End) -> str:
    """An address as the table has it: the 32 bits in the host's byte order, then the port."""
    (number,) = struct.unpack("=I", socket.inet_aton(end[0]))
    return f"{number:08X}:{end[1]:04X}"
