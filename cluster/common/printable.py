"""Texts of others, made safe to print: no control characters, no change of direction, bounded.

A terminal obeys control characters, so that a name could hide or replace what a verb prints.
"""

from __future__ import annotations

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def printable(text: str, longest: int | None = None) -> str:
    """The text with a replacement for each character that is not printable, and cut.

    Not printable are control and format characters, surrogates, separators other than the space,
    and code points without a character (`str.isprintable`).

    Args:
        text: anything.
        longest: the most characters; None: as many as there are.

    """
    cut = text if longest is None else text[:longest]
    if cut.isprintable():
        return cut
    return "".join(item if item.isprintable() else REPLACEMENT for item in cut)
