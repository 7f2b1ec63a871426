"""Variants of an input that cost next to nothing: one token of its text is another one.

Hypothesis needs milliseconds for an input, a server less. The variants follow from the input alone,
so a seed repeats them, and each is an input of its own when it is stored.
"""

from __future__ import annotations

import math
import random
import re
import zlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import msgspec

from tests.fuzz.exchange import Request
from tests.fuzz.inputs import Input, Messages, Packets, Script, Step, Stored

PER_INPUT = 3
_TOKENS = re.compile(rb'"[^"\\]{0,80}"|-?\d+(?:\.\d+)?|true|false|null|(?<==)[^&"]{0,80}(?=&|$)')
_JSON: tuple[bytes, ...] = (
    b"null", b"0", b"-1", b"1e308", b"1e999", b"-0.0", b"NaN", b"Infinity", b"0.0004",
    b"4294967296", b"9007199254740993", b"9223372036854775808", b"18446744073709551616",
    b"1" * 400, b'""', b'"a"',
    b'".."', b'"a/b"', b'"\\u0000"', b'"\\ud800"', b'"*"', b'"' + b"x" * 2000 + b'"', b"[]", b"{}",
    b"[1]", b'{"value":1}', b'{"value":"a"}', b'[{"value":[]}]', b"true", b"[" * 200 + b"]" * 200,
)  # fmt: skip
_FORM: tuple[bytes, ...] = (
    b"", b"-1", b"0", b"99999999999999999999", b"nan", b"true", b"%00", b"%ff", b"%F0%9F%98%80",
    b"..",
    b"a" * 3000, b"%26", b"10.0.0.0/99", b"arn:aws:", b"i-", b"{}", b"[", b"1e400", b"%ED%A0%80",
)  # fmt: skip

_VALUES: tuple[Any, ...] = (
    None, True, 0, -1, 2**53 + 1, 2**63 - 1, 2**64 - 1, 0.0004, -0.0, 1e15, 1e300, 1e308, math.nan,
    math.inf, -math.inf, "", "..", "a/b", "x" * 2000, "\x00", b"", [], {}, [1], {"value": math.nan},
)  # fmt: skip


def variants(value: Input) -> Iterator[Input]:
    """A few inputs that differ from this one in a token or in some bytes."""
    chance = random.Random(zlib.crc32(repr(value).encode()))
    for _ in range(PER_INPUT):
        match value:
            case Request(body=body) if body:
                yield replace(value, body=_changed_text(body, chance))
            case Request():
                yield replace(value, path=_changed_text(value.path, chance))
            case Packets():
                yield replace(value, packets=tuple(_changed(it, chance) for it in value.packets))
            case Messages():
                yield Messages(_one_changed(value.messages, chance))
            case Stored():
                yield replace(value, data=_changed_text(value.data, chance))
            case Script():
                yield Script(_with_changed_step(value.steps, chance))


def _changed_text(text: bytes, chance: random.Random) -> bytes:
    """The text with another token in place of one of its own."""
    tokens = list(_TOKENS.finditer(text))
    if not tokens:
        return _changed(text, chance)
    token = chance.choice(tokens)
    is_form = text[token.start() - 1 : token.start()] == b"="
    return text[: token.start()] + chance.choice(_FORM if is_form else _JSON) + text[token.end() :]


def _changed(data: bytes, chance: random.Random) -> bytes:
    """The data with one byte changed, without one, or with one more."""
    at = chance.randrange(len(data) + 1)
    new = bytes([chance.choice((0, 10, 13, 32, 127, 128, 255, chance.randrange(256)))])
    return data[:at] + chance.choice((new, b"")) + data[at + chance.randrange(2) :]


def _changed_message(data: bytes, chance: random.Random) -> bytes:
    """The msgpack message with one other value in it; with other bytes if it is not msgpack."""
    try:
        document = msgspec.msgpack.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return _changed(data, chance)
    leaves = list(_leaves(document))
    if not leaves or chance.random() < 0.2:
        return _changed(data, chance)
    # Numbers decide over resources and times, and there are few of them.
    numbers = [leaf for leaf in leaves if isinstance(leaf[0][leaf[1]], int | float)]
    holder, key = chance.choice(numbers if numbers and chance.random() < 0.6 else leaves)
    holder[key] = chance.choice(_VALUES)
    return msgspec.msgpack.encode(document)


def _leaves(value: Any) -> Iterator[tuple[Any, Any]]:
    """Each value that holds no other, as its holder and the key in it."""
    items: list[tuple[Any, Any]] = []
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    for key, item in items:
        if isinstance(item, dict | list) and item:
            yield from _leaves(item)
        else:
            yield value, key


def _one_changed(items: tuple[bytes, ...], chance: random.Random) -> tuple[bytes, ...]:
    at = chance.randrange(len(items))
    return (*items[:at], _changed_message(items[at], chance), *items[at + 1 :])


def _with_changed_step(steps: tuple[Step, ...], chance: random.Random) -> tuple[Step, ...]:
    at = chance.randrange(len(steps))
    step = steps[at]
    change = _changed_text if step.kind == "call" else _changed_message
    return (*steps[:at], Step(step.kind, change(step.data, chance)), *steps[at + 1 :])
