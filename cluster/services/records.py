"""Codecs of the records of services, and the sizes that they allow. No I/O."""

from __future__ import annotations

from typing import TypeAlias

from mesaform.common.records import Codec
from mesaform.services.model import App, Deployment, Instance

APP = Codec("services.app", App)
INSTANCE = Codec("services.instance", Instance)
DEPLOYMENT = Codec("services.deployment", Deployment, compress_above_bytes=100_000)
FRAMEWORK_ID = Codec("services.framework-id", str)

Record: TypeAlias = App | Instance | Deployment


def encode(value: Record) -> bytes:
    """The record of a value.

    Raises:
        RecordRefused: it is larger than ZooKeeper allows, or breaks a constraint of `model`.

    """
    if isinstance(value, App):
        return APP.encode(value)
    return INSTANCE.encode(value) if isinstance(value, Instance) else DEPLOYMENT.encode(value)
