"""The bill of a time span from ledger rows: dollars by a grouping, idle, waiting, over time. Pure.

Rows of machines give exact times and prices (`billing_periods`). Rows of resource usage
(`usage_recorder`) say who used the machines: apps and roles pay for their part. What nobody used
and what no row records are lines of their own. The lines of a bill add up to its total.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

from mesaform.autoscaler.accounting.billing_periods import Rental, rentals
from mesaform.aws.ports.ledger import Row

By = Literal["pool", "app", "role", "type", "zone", "capacity"]

MACHINES = (
    "machine_started",
    "machine_stopped",
    "machines",
    "price",
    "receipt",
    "interruption",
    "lost_rows",
)
USAGE = ("resource_usage", "usage")
"""`usage` rows are those of Mesaform before it recorded roles."""
KINDS = (*MACHINES, *USAGE)
SAMPLE_HOLDS_S = 900.0
"""How long a `usage` row counts when no other follows, in seconds."""

UNUSED = "(not used)"
CLUSTER = "(masters)"
UNKNOWN = "(not known)"
ENTRY = 4
"""Columns of an entry in `machines` that name the machines.

The others are seconds, idle seconds, USD, unused USD and idle USD.
"""

_GROUP: Mapping[str, Callable[[Rental], str]] = {
    "pool": lambda rental: rental.pool or CLUSTER,
    "type": lambda rental: rental.instance_type,
    "zone": lambda rental: rental.zone,
    "capacity": lambda rental: rental.capacity,
}
_COLUMN = {"pool": 0, "type": 1, "zone": 2, "capacity": 3}
_HOLDER = {"app": 0, "role": 1}


@dataclass(frozen=True, slots=True)
class Share:
    """A line of a bill. `idle_usd` is what its machines cost without a task, if recorded."""

    name: str
    usd: float
    machines: int
    idle_usd: float | None


@dataclass(frozen=True, slots=True)
class Bill:
    """A bill.

    `series` and `idle_series` are average USD an hour of equal parts from `since` to `until`
    (epoch s). `unused_usd` is what no task held of the agents; `waited_usd` is the price of the
    part of a machine that waiting work would have used.
    """

    since: float
    until: float
    usd: float
    planned_usd: float
    idle_usd: float
    unused_usd: float | None
    waited_task_s: float
    waited_usd: float
    by: By
    shares: tuple[Share, ...]
    series: tuple[float, ...]
    idle_series: tuple[float, ...]
    machines: int
    machine_hours: float
    interruptions: int
    lost_rows: int

    def as_json(self) -> Row:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class _Part:
    """The part of a usage row within a span: from, to (epoch s), and its share of the row."""

    row: Row
    start: float
    end: float
    whole: float


def add_up(
    rows: Iterable[Row], since: float, until: float, by: By = "pool", columns: int = 72
) -> Bill:
    """The bill of a time span (epoch s), grouped by `by`; the series have `columns` values."""
    rows = list(rows)
    machines = [rental for rental in rentals(rows, until) if rental.seconds(since, until) > 0]
    span = _Span(since, until, machines, _parts(rows, since, until))
    total = round(span.usd(machines), 4)
    idle = _idle(span)
    waited_task_s, waited_usd = _waited(span)
    return Bill(
        since=since,
        until=until,
        usd=total,
        planned_usd=round(
            sum(rental.planned * rental.seconds(since, until) / 3600 for rental in machines), 4
        ),
        idle_usd=round(sum(idle.values()), 4),
        unused_usd=_unused_usd(span),
        waited_task_s=round(waited_task_s, 1),
        waited_usd=round(waited_usd, 4),
        by=by,
        shares=_shares(span, total, idle, by),
        series=_series(machines, since, until, columns),
        idle_series=_idle_series(span.parts, since, until, columns),
        machines=len(machines),
        machine_hours=round(sum(rental.seconds(since, until) for rental in machines) / 3600, 2),
        interruptions=len(_rows_within(rows, "interruption", span)),
        lost_rows=sum(int(row["rows"]) for row in _rows_within(rows, "lost_rows", span)),
    )


@dataclass(frozen=True, slots=True)
class _Span:
    """A time span (epoch s) with its machines and with the parts of usage rows within it."""

    since: float
    until: float
    machines: Sequence[Rental]
    parts: Sequence[_Part]

    def usd(self, machines: Iterable[Rental]) -> float:
        """What machines cost within the span."""
        return sum(rental.usd(self.since, self.until) for rental in machines)


def _rows_within(rows: Iterable[Row], kind: str, span: _Span) -> list[Row]:
    """The rows of a kind whose time is within the span."""
    return [row for row in rows if row["kind"] == kind and span.since <= row["at"] <= span.until]


def _waited(span: _Span) -> tuple[float, float]:
    """Task-seconds that work waited, and what its part of a machine is worth (USD)."""
    task_s = usd = 0.0
    for part in span.parts:
        for entry in part.row.get("waited", ()):
            task_s += float(entry[1]) * part.whole
            usd += float(entry[2]) * part.whole
    return task_s, usd


def _unused_usd(span: _Span) -> float | None:
    """What no task held of the agents; None where no row records it."""
    return round(sum(_unused(part) for part in span.parts), 4) if span.parts else None


def apportioned(amounts: Mapping[str, float], total: float, digits: int = 4) -> dict[str, float]:
    """The amounts rounded so that they add up to the rounded total, by largest remainder."""
    unit = 10**digits
    floors = {name: int(amount * unit + 1e-9) for name, amount in amounts.items()}
    left = round(total * unit) - sum(floors.values())
    order = sorted(amounts, key=lambda name: (floors[name] - amounts[name] * unit, name))
    for index in range(abs(left) if order else 0):
        floors[order[index % len(order)]] += 1 if left > 0 else -1
    return {name: floor / unit for name, floor in floors.items()}


def _parts(rows: Iterable[Row], since: float, until: float) -> list[_Part]:
    """The parts of usage rows within a span. Where two overlap, the earlier counts."""
    spans = sorted(_spans(rows), key=lambda span: (span[0], span[1]))
    result = []
    covered_until = since
    for start, end, row in spans:
        first, last = max(start, covered_until), min(end, until)
        if last > first:
            result.append(_Part(row, first, last, (last - first) / (end - start)))
            covered_until = last
    return result


def _spans(rows: Iterable[Row]) -> list[tuple[float, float, Row]]:
    result: list[tuple[float, float, Row]] = []
    samples = []
    for row in rows:
        if row["kind"] == "resource_usage":
            result.append((float(row["since"]), float(row["at"]), row))
        elif row["kind"] == "usage":
            samples.append(row)
    samples.sort(key=lambda row: float(row["at"]))
    ends = [float(row["at"]) for row in samples[1:]] + [float("inf")]
    for row, following in zip(samples, ends, strict=False):
        end = min(following, float(row["at"]) + SAMPLE_HOLDS_S)
        result.append((float(row["at"]), end, _as_held(row, (end - float(row["at"])) / 3600)))
    return result


def _as_held(row: Row, hours: float) -> Row:
    """A `usage` row, which has rates and no roles, as a `resource_usage` row."""
    used = [[app, UNKNOWN, float(usd) * hours] for app, usd in row.get("usd_by_app", {}).items()]
    unused = float(row.get("usd_unused", 0.0)) * hours
    return {"used": used, "machines": [["", "", "", "", 0.0, 0.0, 0.0, unused, 0.0]]}


def _unused(part: _Part) -> float:
    return sum(float(entry[ENTRY + 3]) for entry in part.row.get("machines", ())) * part.whole


def _idle(span: _Span) -> dict[tuple[str, ...], float]:
    """Dollars of machines without a task, by pool, type, zone and capacity type.

    Where no row records them, they are estimated from the idle time of ended machines.
    """
    if any("since" in part.row for part in span.parts):
        return _recorded_idle(span)
    result: dict[tuple[str, ...], float] = {}
    for rental in span.machines:
        key = (rental.pool or CLUSTER, rental.instance_type, rental.zone, rental.capacity)
        share = min(1.0, rental.idle_s / max(rental.end - rental.start, 1.0))
        result[key] = result.get(key, 0.0) + rental.usd(span.since, span.until) * share
    return result


def _recorded_idle(span: _Span) -> dict[tuple[str, ...], float]:
    result: dict[tuple[str, ...], float] = {}
    for part in span.parts:
        for entry in part.row.get("machines", ()):
            key = tuple(entry[:ENTRY])
            result[key] = result.get(key, 0.0) + float(entry[ENTRY + 4]) * part.whole
    return result


def _by_machine(span: _Span, by: By) -> dict[str, float]:
    dollars: dict[str, float] = {}
    for rental in span.machines:
        name = _GROUP[by](rental) or UNKNOWN
        dollars[name] = dollars.get(name, 0.0) + rental.usd(span.since, span.until)
    return dollars


def _by_holder(span: _Span, by: By) -> dict[str, float]:
    """Agents' dollars by who held them; masters and unrecorded times are lines of their own."""
    dollars = _recorded_use(span, _HOLDER[by])
    masters = [rental for rental in span.machines if rental.role == "master"]
    masters_usd = span.usd(masters)
    agents_usd = span.usd(span.machines) - masters_usd
    attributed = sum(dollars.values())
    if attributed > agents_usd:
        # A pass sees a machine's end late, and EC2's clock differs: never more than was paid.
        dollars = {name: usd * agents_usd / attributed for name, usd in dollars.items()}
    elif agents_usd > attributed:
        dollars[UNKNOWN] = dollars.get(UNKNOWN, 0.0) + agents_usd - attributed
    return {**dollars, **({CLUSTER: masters_usd} if masters_usd else {})}


def _recorded_use(span: _Span, column: int) -> dict[str, float]:
    """Dollars by what is in a column of the usage rows, and what nobody held."""
    dollars: dict[str, float] = {}
    for part in span.parts:
        for entry in part.row.get("used", ()):
            dollars[entry[column]] = dollars.get(entry[column], 0.0) + float(entry[2]) * part.whole
        unused = _unused(part)
        if unused > 0:
            dollars[UNUSED] = dollars.get(UNUSED, 0.0) + unused
    return dollars


def _shares(
    span: _Span, total: float, idle: Mapping[tuple[str, ...], float], by: By
) -> tuple[Share, ...]:
    """The lines of the bill, the most expensive first. They add up to `total`."""
    dollars = _by_holder(span, by) if by in _HOLDER else _by_machine(span, by)
    counts = Counter(_share_name(rental, by) for rental in span.machines)
    idle_by = _idle_by(idle, by) if by in _COLUMN else None
    shares = [
        Share(name, usd, counts[name], _idle_share(idle_by, name, usd))
        for name, usd in apportioned(dollars, total).items()
        if usd or counts[name]
    ]
    return tuple(sorted(shares, key=lambda share: (-share.usd, share.name)))


def _share_name(rental: Rental, by: By) -> str:
    """The line that a machine is counted in; none for an agent where lines are holders."""
    if by in _GROUP:
        return _GROUP[by](rental) or UNKNOWN
    return CLUSTER if rental.role == "master" else ""


def _idle_by(idle: Mapping[tuple[str, ...], float], by: By) -> dict[str, float]:
    result: dict[str, float] = {}
    for key, usd in idle.items():
        name = key[_COLUMN[by]] or UNKNOWN
        result[name] = result.get(name, 0.0) + usd
    return result


def _idle_share(idle_by: Mapping[str, float] | None, name: str, usd: float) -> float | None:
    return None if idle_by is None else round(min(usd, idle_by.get(name, 0.0)), 4)


def _series(
    machines: Sequence[Rental], since: float, until: float, columns: int
) -> tuple[float, ...]:
    """USD an hour of equal parts of the stretch."""
    if until <= since:
        return ()
    step = (until - since) / columns
    sums = [0.0] * columns
    for rental in machines:
        first = max(0, int((rental.start - since) / step))
        last = min(columns - 1, int((rental.billed_until - since) / step))
        for number in range(first, last + 1):
            sums[number] += rental.usd(since + step * number, since + step * (number + 1))
    return tuple(round(usd / step * 3600, 6) for usd in sums)


def _idle_series(
    held: Sequence[_Part], since: float, until: float, columns: int
) -> tuple[float, ...]:
    if until <= since:
        return ()
    step = (until - since) / columns
    sums = [0.0] * columns
    for part in held:
        usd = sum(float(entry[ENTRY + 4]) for entry in part.row.get("machines", ())) * part.whole
        if not usd:
            continue
        for number in range(
            int((part.start - since) / step), min(columns - 1, int((part.end - since) / step)) + 1
        ):
            start = since + step * number
            overlap = min(part.end, start + step) - max(part.start, start)
            sums[number] += usd * max(0.0, overlap) / (part.end - part.start)
    return tuple(round(usd / step * 3600, 6) for usd in sums)


def bars(series: Sequence[float], height: int = 8, top: float = 0.0) -> list[str]:
    """A plot in block characters with `height` lines, the top one first. `top` ends the scale."""
    top = top or max(series, default=0.0)
    if top <= 0:
        return [" " * len(series)] * height
    eighths = [round(value / top * height * 8) for value in series]
    return [
        "".join(" ▁▂▃▄▅▆▇█"[min(8, max(0, level - 8 * line))] for level in eighths)
        for line in reversed(range(height))
    ]
