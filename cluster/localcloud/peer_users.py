"""The user that a connection over loopback belongs to, from `/proc/net/tcp` (proc(5))."""

from __future__ import annotations

import socket
import struct
from pathlib import Path

TABLE = Path("/proc/net/tcp")
_UID, _INODE = 4, 6
"""Fields of a line after both addresses: user and inode."""


def peer_user(own: tuple[str, int], peer: tuple[str, int]) -> int | None:
    """The user id of the process at the other end; None if it has closed the connection.

    Args:
        own: address and port of this end.
        peer: address and port of the other end, which is on this host.

    """
    # One search in the whole table: a busy host has thousands of lines.
    ends = f" {_hexadecimal(peer)} {_hexadecimal(own)} "
    _, is_listed, rest = TABLE.read_text("ascii").partition(ends)
    if not is_listed:
        return None
    fields = rest.partition("\n")[0].split()
    # A connection that its process closed has no inode, and stands under user 0.
    return int(fields[_UID]) if fields[_INODE] != "0" else None


def _hexadecimal(end: tuple[str, int]) -> str:
    """An address as the table has it: the 32 bits in the host's byte order, then the port."""
    (number,) = struct.unpack("=I", socket.inet_aton(end[0]))
    return f"{number:08X}:{end[1]:04X}"
