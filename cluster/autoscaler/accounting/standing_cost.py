"""The part of a bill that is of no machine: requests to S3 and SQS, and traffic between zones.

The ledger has no rows of it. It is the estimate that `status`, `plan`, `validate` and `down` show,
for as long as any machine ran. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from mesaform.autoscaler.accounting.billing_periods import rentals
from mesaform.autoscaler.accounting.cost_report import Bill, Share
from mesaform.aws.ports.ledger import Row

STANDING = "(requests and traffic, estimated)"
"""The line of the bill."""

Interval = tuple[float, float]


def with_standing(bill: Bill, rows: Iterable[Row], usd_per_hour: float) -> Bill:
    """The bill with what the cluster costs besides its machines.

    Args:
        bill: the bill of machines.
        rows: the rows that it was made from.
        usd_per_hour: the estimate of the cluster as it is described now.

    """
    covered = list(_covered(rows, bill.since, bill.until))
    usd = round(sum(end - start for start, end in covered) / 3600 * usd_per_hour, 4)
    if not usd:
        return bill
    shares = sorted(
        (*bill.shares, Share(STANDING, usd, 0, None)), key=lambda share: (-share.usd, share.name)
    )
    return replace(
        bill,
        usd=round(bill.usd + usd, 4),
        planned_usd=round(bill.planned_usd + usd, 4),
        shares=tuple(shares),
        series=_added(bill, covered, usd_per_hour),
    )


def _covered(rows: Iterable[Row], since: float, until: float) -> Iterator[Interval]:
    """The parts of a span (epoch s) in which any machine ran, in order and without overlaps."""
    last = since
    spans = sorted((rental.start, rental.billed_until) for rental in rentals(rows, until))
    for start, end in spans:
        first, ends = max(start, last), min(end, until)
        if ends > first:
            yield first, ends
            last = ends


def _added(bill: Bill, covered: Sequence[Interval], usd_per_hour: float) -> tuple[float, ...]:
    """The bill's series with the estimate in the parts in which a machine ran."""
    step = (bill.until - bill.since) / max(1, len(bill.series))
    parts = ((bill.since + step * number, usd) for number, usd in enumerate(bill.series))
    return tuple(
        round(usd + usd_per_hour * _overlap(covered, start, start + step) / step, 6)
        for start, usd in parts
    )


def _overlap(covered: Iterable[Interval], start: float, end: float) -> float:
    return sum(max(0.0, min(end, last) - max(start, first)) for first, last in covered)
