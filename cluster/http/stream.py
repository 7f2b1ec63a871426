"""Marks an answer that goes on until one side ends it."""

from __future__ import annotations

from aiohttp import web

from mesaform.http.connection import Connection


def mark_stream(request: web.Request) -> None:
    """Exempt the request's connection from time-outs and from eviction until the handler returns.

    The handler bounds what it queues for a peer that does not read.
    """
    protocol = request.protocol
    if isinstance(protocol, Connection):
        protocol.is_stream = True
