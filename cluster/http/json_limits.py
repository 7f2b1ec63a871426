"""Checks of a JSON text before anything is built from it: elements, depth, integers. Pure.

A text within the limits costs three passes of the C library over its bytes. Only a text that may
exceed one is scanned by its tokens, and that scan ends at the limit.
"""

from __future__ import annotations

import re
from itertools import islice

from mesaform.http.errors import BadRequest

MIN_INTEGER = -(2**63)
MAX_INTEGER = 2**64 - 1

_STRING = rb'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)'
_STRINGS = re.compile(_STRING, re.DOTALL)
_ELEMENT = re.compile(rb'(?:[^",\[{]++|' + _STRING + rb")*+(?:[,\[{]|\Z)", re.DOTALL)
"""Everything up to the next comma or opening bracket outside of strings. It matches anywhere, so
that a scan is linear."""
_INTEGER = re.compile(rb"(?<![0-9.eE+-])-?[0-9]{19,}(?![0-9.eE])")
_LONG_NUMBER = b"0" * 19
_DIGITS_TO_ZERO = bytes(48 if chr(code).isdigit() and code < 128 else 32 for code in range(256))
_NOT_SEPARATORS = bytes(set(range(256)) - set(b",[{"))
_NOT_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_PAIRS = (b"[]", b"{}")


def check(text: bytes, *, max_elements: int, max_depth: int) -> None:
    """Check a text that is to be decoded as JSON. Whether it is JSON shows the decoder.

    Raises:
        BadRequest: as `check_shape` and `check_integers`.

    """
    check_shape(text, max_elements=max_elements, max_depth=max_depth)
    check_integers(text)


def check_shape(text: bytes, *, max_elements: int, max_depth: int) -> None:
    """Check the number of elements, which are members of objects and items of arrays, and depth.

    Raises:
        BadRequest: 413 for too many elements; 400 for a text that is nested too deeply.

    """
    separators = text.translate(None, _NOT_SEPARATORS)
    if len(separators) > max_elements and _has_more_elements(text, max_elements):
        raise BadRequest(f"The JSON document has more than {max_elements} elements", 413)
    may_be_deep = len(separators) - separators.count(b",") > max_depth
    if may_be_deep and _is_deeper(_without_strings(text), max_depth):
        raise BadRequest(f"The JSON document is nested more than {max_depth} levels deep")


def check_integers(text: bytes) -> None:
    """Check that each integer has at most 64 bits.

    Raises:
        BadRequest: 400 for a larger one.

    """
    if _LONG_NUMBER in text.translate(_DIGITS_TO_ZERO):
        _check_integers(_without_strings(text))


def _without_strings(text: bytes) -> bytes:
    """The text with empty strings in place of its strings."""
    if b"\\" in text:
        return _STRINGS.sub(b'""', text)
    return b'""'.join(text.split(b'"')[::2])


def _has_more_elements(text: bytes, limit: int) -> bool:
    """The scan has one match more than elements: the one at the end of the text."""
    matches = islice(_ELEMENT.finditer(text), limit + 2)
    return sum(1 for _ in matches) > limit + 1


def _is_deeper(plain: bytes, limit: int) -> bool:
    """Whether brackets remain after the innermost pairs were removed `limit` times."""
    brackets = plain.translate(None, _NOT_BRACKETS)
    for _ in range(limit):
        if not brackets:
            return False
        for pair in _PAIRS:
            brackets = brackets.replace(pair, b"")
    return bool(brackets)


def _check_integers(plain: bytes) -> None:
    for match in _INTEGER.finditer(plain):
        digits = match.group()
        if len(digits) > 20 or not MIN_INTEGER <= int(digits) <= MAX_INTEGER:
            raise BadRequest(f"The integer {_shortened(digits)} has more than 64 bits")


def _shortened(digits: bytes) -> str:
    text = digits.decode()
    return text if len(text) <= 24 else f"{text[:12]}… of {len(text)} digits"
