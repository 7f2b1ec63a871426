"""Values of records that have no parts: times, addresses, bytes, keys, locks.

A leaf is written as `{tag: text}`; strings, integers, finite floats, booleans and null are written
as they are.
"""

from __future__ import annotations

import base64
import math
import re
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

PLAIN_TYPES = frozenset({str, int, bool, type(None)})
"""Types that JSON has itself. Floats are missing: NaN and infinities are not JSON."""

PRIVATE_KEYS = (RSAPrivateKey, EllipticCurvePrivateKey)


@dataclass(frozen=True, slots=True)
class Leaf:
    """How values of some types are written and read.

    `encode` takes a value of one of the types, hence `Any`; `decode` takes text of unknown origin
    and may raise ValueError.
    """

    tag: str
    types: tuple[type, ...]
    encode: Callable[[Any], str]
    decode: Callable[[str], object]


def encode_bytes(data: bytes) -> str:
    """Bytes as base64."""
    return base64.b64encode(data).decode("ascii")


def decode_bytes(text: str) -> bytes:
    """The bytes of `encode_bytes`."""
    return base64.b64decode(text, validate=True)


def encode_private_key(key: RSAPrivateKey | EllipticCurvePrivateKey) -> str:
    """A private key as base64 of its PKCS #8 form, not encrypted."""
    return encode_bytes(
        key.private_bytes(
            serialization.Encoding.DER,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )


def _decode_private_key(text: str) -> object:
    return serialization.load_der_private_key(
        decode_bytes(text),
        None,
        unsafe_skip_rsa_key_validation=True,  # a key of this program; the check takes 100 ms
    )


def _encode_pattern(pattern: re.Pattern[str]) -> str:
    return f"{pattern.flags}:{pattern.pattern}"


def _decode_pattern(text: str) -> object:
    flags, _, pattern = text.partition(":")
    return re.compile(pattern, int(flags))


def _lock(kind: Callable[[], object], name: str) -> Leaf:
    """Locks are recorded as free: the endpoint executes one call at a time and saves after it."""
    return Leaf(f"new {name}", (type(kind()),), lambda _: "", lambda _: kind())


LEAVES = (
    Leaf("datetime", (datetime,), datetime.isoformat, datetime.fromisoformat),
    Leaf("date", (date,), date.isoformat, date.fromisoformat),
    Leaf(
        "duration_s",
        (timedelta,),
        lambda value: repr(value.total_seconds()),
        lambda text: timedelta(seconds=float(text)),
    ),
    Leaf("decimal", (Decimal,), str, Decimal),
    Leaf("uuid", (uuid.UUID,), str, uuid.UUID),
    Leaf("address", (IPv4Address, IPv6Address), str, ip_address),
    Leaf("network", (IPv4Network, IPv6Network), str, ip_network),
    Leaf("bytes", (bytes,), encode_bytes, decode_bytes),
    Leaf("bytearray", (bytearray,), encode_bytes, lambda text: bytearray(decode_bytes(text))),
    Leaf("pattern", (re.Pattern,), _encode_pattern, _decode_pattern),
    Leaf("private key", (), encode_private_key, _decode_private_key),
    _lock(threading.Lock, "lock"),
    _lock(threading.RLock, "reentrant lock"),
    _lock(threading.Condition, "condition"),
    _lock(threading.Event, "event"),
)
LEAF_BY_TYPE = {kind: leaf for leaf in LEAVES for kind in leaf.types}
LEAF_BY_TAG = {leaf.tag: leaf for leaf in LEAVES}


def encode_float(value: float) -> float | dict[str, str]:
    """A float as JSON has it, or `{"float": "nan"}` for what JSON lacks."""
    return value if math.isfinite(value) else {"float": repr(value)}
