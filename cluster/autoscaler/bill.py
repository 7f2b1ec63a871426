"""What a stretch of time cost, from the ledger's rows: dollars by pool, app or role, idle dollars, planned and paid, a series. Pure.

Machines' rows give the exact hours (`machine_started`, `machine_stopped`), usage rows (what the apps held of the machines, every few
minutes) say who used them. List prices; EC2 bills by the second, at least a minute.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

Row = Mapping[str, Any]
By = Literal["pool", "app", "role"]

KINDS = ("machine_started", "machine_stopped", "usage", "receipt")
LEAST_BILLED_S = 60.0
SAMPLE_HOLDS_S = 900.0
"""How long a usage row counts when none follows: the daemon writes one at least every five minutes."""

UNUSED = "(not used)"
CLUSTER = "(masters)"
UNKNOWN = "(not known)"


@dataclass(frozen=True, slots=True)
class Rental:
    """A machine's time. `planned` is what its purchase was expected to cost an hour."""

    instance_id: str
    pool: str
    role: str
    usd_per_hour: float
    planned: float
    start: float
    end: float
    idle_s: float
    is_over: bool

    def usd(self, since: float, until: float, rate: float | None = None) -> float:
        """What it cost within a stretch."""
        end = max(self.end, self.start + LEAST_BILLED_S) if self.is_over else self.end
        seconds = max(0.0, min(end, until) - max(self.start, since))
        return seconds / 3600 * (self.usd_per_hour if rate is None else rate)


@dataclass(frozen=True, slots=True)
class Share:
    """One line of a bill. `idle_usd` is what its machines cost while they had no task; None where that is not known."""

    name: str
    usd: float
    machines: int
    idle_usd: float | None


@dataclass(frozen=True, slots=True)
class Bill:
    """All of it. `series` is USD an hour, on average, of equal stretches from `since` to `until`."""

    since: float
    until: float
    usd: float
    planned_usd: float
    idle_usd: float
    unused_usd: float | None
    by: By
    shares: tuple[Share, ...]
    series: tuple[float, ...]
    machines: int

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def add_up(rows: Iterable[Row], since: float, until: float, by: By = "pool", columns: int = 72) -> Bill:
    """The bill of a stretch of time."""
    rows = list(rows)
    rentals = [one for one in _rentals(rows, until) if one.usd(since, until) > 0]
    usages = [row for row in rows if row["kind"] == "usage"]
    usd = sum(one.usd(since, until) for one in rentals)
    unused = _unused(usages, since, until)
    return Bill(
        since=since,
        until=until,
        usd=round(usd, 6),
        planned_usd=round(sum(one.usd(since, until, one.planned) for one in rentals), 6),
        idle_usd=round(sum(_idle_usd(one, since, until) for one in rentals), 6),
        unused_usd=None if unused is None else round(unused, 6),
        by=by,
        shares=_by_app(usages, rentals, since, until) if by == "app" else _grouped(rentals, since, until, by),
        series=_series(rentals, since, until, columns),
        machines=len(rentals),
    )


def _rentals(rows: Iterable[Row], until: float) -> list[Rental]:
    """Each machine once. What a receipt says is gone does not run on, even if nobody wrote that it stopped."""
    started: dict[str, Row] = {}
    stopped: dict[str, Row] = {}
    torn_down: list[float] = []
    for row in rows:
        if row["kind"] == "receipt":
            torn_down.append(float(row["at"]))
        elif row["kind"] in {"machine_started", "machine_stopped"}:
            (started if row["kind"] == "machine_started" else stopped)[str(row["instance_id"])] = row
    found = []
    for name in {**started, **stopped}:
        told = {**started.get(name, {}), **stopped.get(name, {})}
        start = float(told.get("launched_at", told["at"]))
        ends = [float(stopped[name]["at"])] if name in stopped else [at for at in torn_down if at > start]
        found.append(_rental(name, told, start, min(ends, default=until), is_over=bool(ends)))
    return found


def _rental(name: str, told: Row, start: float, end: float, *, is_over: bool) -> Rental:
    rate = float(told.get("usd_per_hour") or 0.0)
    return Rental(
        instance_id=name,
        pool=str(told.get("pool") or ""),
        role=str(told.get("role") or ""),
        usd_per_hour=rate,
        planned=float(told.get("planned_usd_per_hour") or rate),
        start=start,
        end=end,
        idle_s=float(told.get("idle_s") or 0.0),
        is_over=is_over,
    )


def _idle_usd(one: Rental, since: float, until: float) -> float:
    """A machine's idle time is known when it has ended, and taken as spread over its life."""
    whole = max(one.end - one.start, 1.0)
    return one.usd(since, until) * min(1.0, one.idle_s / whole)


def _grouped(rentals: Sequence[Rental], since: float, until: float, by: By) -> tuple[Share, ...]:
    groups: dict[str, list[Rental]] = {}
    for one in rentals:
        name = one.role if by == "role" else one.pool or CLUSTER
        groups.setdefault(name or UNKNOWN, []).append(one)
    shares = [
        Share(
            name,
            round(sum(one.usd(since, until) for one in group), 6),
            len(group),
            round(sum(_idle_usd(one, since, until) for one in group), 6),
        )
        for name, group in groups.items()
    ]
    return tuple(sorted(shares, key=lambda share: (-share.usd, share.name)))


def _stretches(usages: Sequence[Row], since: float, until: float) -> list[tuple[Row, float]]:
    """Each usage row with the hours that it stands for: until the next, or as long as it may hold."""
    ordered = sorted(usages, key=lambda row: float(row["at"]))
    ends = [float(row["at"]) for row in ordered[1:]] + [until]
    found = []
    for row, end in zip(ordered, ends, strict=False):
        at = float(row["at"])
        found.append((row, max(0.0, min(end, until, at + SAMPLE_HOLDS_S) - max(at, since)) / 3600))
    return found


def _unused(usages: Sequence[Row], since: float, until: float) -> float | None:
    if not usages:
        return None
    return sum(float(row.get("usd_unused", 0.0)) * hours for row, hours in _stretches(usages, since, until))


def _by_app(usages: Sequence[Row], rentals: Sequence[Rental], since: float, until: float) -> tuple[Share, ...]:
    """Agents' dollars by who held them, the masters' and what no usage row tells by themselves: together exactly the bill."""
    dollars: dict[str, float] = {}
    for row, hours in _stretches(usages, since, until):
        for name, rate in {**row.get("usd_by_app", {}), UNUSED: row.get("usd_unused", 0.0)}.items():
            dollars[name] = dollars.get(name, 0.0) + float(rate) * hours
    masters = [one for one in rentals if one.role == "master"]
    agents_usd = sum(one.usd(since, until) for one in rentals if one.role != "master")
    told = sum(dollars.values())
    if told > agents_usd:  # a machine that ended between two usage rows counts until it ended, not until the next row
        dollars = {name: usd * agents_usd / told for name, usd in dollars.items()}
    elif agents_usd - told > 1e-9:
        dollars[UNKNOWN] = agents_usd - told
    if masters:
        dollars[CLUSTER] = sum(one.usd(since, until) for one in masters)
    shares = [Share(name, round(usd, 6), len(masters) if name == CLUSTER else 0, None) for name, usd in dollars.items() if usd > 0]
    return tuple(sorted(shares, key=lambda share: (-share.usd, share.name)))


def _series(rentals: Sequence[Rental], since: float, until: float, columns: int) -> tuple[float, ...]:
    if until <= since:
        return ()
    step = (until - since) / columns
    edges = [(since + step * number, since + step * (number + 1)) for number in range(columns)]
    return tuple(round(sum(one.usd(start, end) for one in rentals) / step * 3600, 6) for start, end in edges)


def bars(series: Sequence[float], height: int = 8) -> list[str]:
    """A plot in block characters, `height` lines, the top one first; each character is one value."""
    top = max(series, default=0.0)
    if top <= 0:
        return [" " * len(series)] * height
    eighths = [round(value / top * height * 8) for value in series]
    return ["".join(" ▁▂▃▄▅▆▇█"[min(8, max(0, level - 8 * line))] for level in eighths) for line in reversed(range(height))]


def usage(agents: Iterable[tuple[float, float, Mapping[str, float]]]) -> tuple[dict[str, float], float]:
    """USD an hour by app, and unused, of agents given as (USD an hour, part in use from 0 to 1, weights of the apps on it)."""
    by_app: dict[str, float] = {}
    unused = 0.0
    for rate, part, weights in agents:
        whole = sum(weights.values())
        if not whole:
            unused += rate
            continue
        unused += rate * (1 - part)
        for name, weight in weights.items():
            by_app[name] = by_app.get(name, 0.0) + rate * part * weight / whole
    return {name: round(usd, 6) for name, usd in sorted(by_app.items())}, round(unused, 6)
