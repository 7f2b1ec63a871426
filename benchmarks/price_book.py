"""Comparison of the offline price book with a price list.

`python -m benchmarks.price_book LIST.csv` (columns `instance_type,usd_per_hour`).
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

from mesaform.aws.pricing import price_book

CLOSE = 0.01
"""How far, as a part of it, the book may be from a list price."""


def compared(rows: dict[str, float]) -> tuple[int, list[str]]:
    """How many types of a list the book has within `CLOSE`, and the names of the others."""
    far = [
        name
        for name, usd in rows.items()
        if abs((price_book.usd_per_hour(name) or 0.0) - usd) > CLOSE * usd
    ]
    return len(rows) - len(far), far


def main(path: str) -> int:
    with Path(path).open(encoding="utf-8") as source:
        rows = {row["instance_type"]: float(row["usd_per_hour"]) for row in csv.DictReader(source)}
    close, far = compared(rows)
    print(f"{close} of {len(rows)} types ({close / len(rows):.1%}) within {CLOSE:.0%}")
    if far:
        print("not:", ", ".join(far))
    return 0 if close >= 0.95 * len(rows) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
