"""The expiry of a cluster with a time to live: its record in `<cluster>/control/`. Pure.

`mesaform up` and `mesaform extend` write the record; the autoscalers end the cluster by it
(docs/adr/0050).
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from mesaform.common.records import DOCUMENT_LIMIT_BYTES, Codec

NAME = "expiry"

Moment = Annotated[float, msgspec.Meta(ge=0, le=253_402_300_799.0)]
"""Seconds since the epoch."""


class Expiry(msgspec.Struct, frozen=True):
    """When a deployment ends.

    `until` is the end; 0 means that it does not end. `ttl_s` is what the cluster file said when the
    record was written, `by` who wrote it last. Machines of other deployments ignore the record.
    """

    deployment: Annotated[str, msgspec.Meta(max_length=64)]
    until: Moment
    ttl_s: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    by: Annotated[str, msgspec.Meta(max_length=256)] = ""


EXPIRY = Codec("control.expiry", Expiry, limit_bytes=DOCUMENT_LIMIT_BYTES)


def settled(
    known: Expiry | None, deployment: str, ttl_s: float | None, now: float, by: str
) -> Expiry | None:
    """Return the record that `mesaform up` must write; None if it may stay.

    The time starts with the first `up`, with one after the end, and with one after a change of
    `ttl` in the cluster file. Further runs of `up` do not prolong it.
    """
    if known is None or known.deployment != deployment:
        known = Expiry(deployment, 0.0)
    if ttl_s is None:
        return Expiry(deployment, 0.0, 0.0, by) if known.until else None
    is_running = known.ttl_s == ttl_s and now < known.until
    return None if is_running else Expiry(deployment, now + ttl_s, ttl_s, by)
