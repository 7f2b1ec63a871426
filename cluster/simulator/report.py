"""HTML report of a comparison on a self-contained page: table, plots and decisions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape

from mesaform.simulator.bound import Bound
from mesaform.simulator.comparison import Outcome
from mesaform.simulator.market import Settings
from mesaform.simulator.report_columns import COLUMNS, Column, about, headline, span
from mesaform.simulator.results import Entry, Level, percentile
from mesaform.simulator.svg import (
    COLOURS,
    Point,
    Series,
    bars,
    legend,
    linear,
    lines,
    ranks,
    times,
    waits,
)
from mesaform.simulator.trace import Trace

BUCKETS = 300
BAR_BUCKETS = 100
ENTRIES_SHOWN = 150

STYLE = """
:root{--ink:#1c2430;--soft:#5b6675;--line:#d9dee5;--paper:#fff;--card:#f7f8fa;--best:#e3f3ec}
@media(prefers-color-scheme:dark){:root{--ink:#e6e9ee;--soft:#9aa5b4;--line:#38414d;
--paper:#14181e;--card:#1b2129;--best:#1d3a2f}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:15px/1.5 system-ui,sans-serif}
main{max-width:1380px;margin:0 auto;padding:28px 24px 60px}h1{font-size:26px;margin:0 0 4px}
h2{font-size:17px;margin:0 0 2px}
p{margin:4px 0}.soft{color:var(--soft)}.lead{font-size:17px;margin:14px 0 18px;max-width:110ch}
.grid2{display:grid;grid-template-columns:repeat(auto-fit,minmax(520px,1fr));gap:18px;
margin-top:18px}
section{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:14px 16px}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{padding:5px 6px;font-size:14px;text-align:right;white-space:nowrap;
border-bottom:1px solid var(--line)}
th{white-space:normal;vertical-align:bottom;font-weight:600;color:var(--soft);font-size:13px}
th:first-child,td:first-child{text-align:left;white-space:nowrap}
td.best{background:var(--best);font-weight:600}
td i,.legend i{display:inline-block;width:11px;height:11px;border-radius:3px;margin-right:6px}
.legend span{margin-right:14px;font-size:13px;white-space:nowrap}.scroll{overflow-x:auto}
svg{width:100%;height:auto;display:block}
.mark{stroke:var(--ink);stroke-width:1.4;stroke-dasharray:5 4}
.line{fill:none;stroke-width:1.8;stroke-linejoin:round}
.axis text{font-size:11px;fill:var(--soft)}.axis line{stroke:var(--soft);stroke-width:.8}
.axis line.grid{stroke:var(--line)}
details{margin-top:8px}summary{cursor:pointer}details td{font-size:13px}
details td:nth-child(n+2){text-align:left;white-space:normal}
"""


def page(trace: Trace, outcomes: Sequence[Outcome], settings: Settings, bound: Bound) -> str:
    """Return the whole page. The others are compared with the first outcome."""
    span_s = max(outcome.figures.makespan_s for outcome in outcomes) or 1.0
    colours = {
        outcome.name: COLOURS[index % len(COLOURS)] for index, outcome in enumerate(outcomes)
    }
    cards = _cards(outcomes, colours, span_s, bound)
    decisions = "".join(_decisions(outcome, colours[outcome.name], span_s) for outcome in outcomes)
    title = f"{escape(trace.name)}: {len(outcomes)} policies, one workload"
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport"'
        ' content="width=device-width">'
        f"<title>{title}</title><style>{STYLE}</style></head><body><main>"
        f"<h1>{title}</h1><p class='soft'>{escape(about(trace, settings))}</p><p"
        f" class='lead'>{escape(headline(outcomes, bound))}</p>"
        f"<section class='scroll'>{_table(outcomes, colours, bound)}</section>"
        f"<div class='grid2'>{''.join(cards)}</div><div class='grid2'>{decisions}</div></main>"
        "</body></html>\n"
    )


def _cards(
    outcomes: Sequence[Outcome], colours: dict[str, str], span_s: float, bound: Bound
) -> list[str]:
    """Return the sections with plots of all outcomes."""
    return [
        _card(
            "Dollars",
            "In all. The line is the least that anything could cost.",
            _dollars(outcomes, colours, bound),
        ),
        _card(
            "Tasks stopped by the policy",
            "For each 1000 hours of tasks.",
            _disruptions(outcomes, colours),
        ),
        _card(
            "Dollars over time",
            "Spent so far; the dashed line is the least that all of it could cost.",
            _cost(outcomes, colours, span_s, bound),
        ),
        _card(
            "Waiting",
            "The part of all tasks that waited at most so long; what never ran never gets there.",
            _waits(outcomes, colours),
        ),
        _card(
            "Machines",
            "Paid for, booting ones included; the mean of each stretch of time.",
            _machines(outcomes, colours, span_s),
        ),
        _card(
            "Utilisation",
            "Cpus in use, of those paid for, over a thirtieth of the time each.",
            _utilisation(outcomes, colours, span_s),
        ),
        _card(
            "Waiting, percentiles",
            "Until placed, and again after each time that a task was stopped.",
            _percentiles(outcomes, colours),
        ),
    ]


def _table(outcomes: Sequence[Outcome], colours: dict[str, str], bound: Bound) -> str:
    shown = [column for column in COLUMNS if any(column[2](outcome) for outcome in outcomes)]
    head = "".join(f'<th title="{escape(what)}">{escape(name)}</th>' for name, what, *_ in shown)
    rows = [_table_row(outcome, outcomes, shown, colours) for outcome in outcomes]
    empty = "<td></td>" * (len(shown) - 1)
    least = escape(COLUMNS[0][3](bound.whole))
    rows.append(f'<tr class="soft"><td>lower bound</td><td>{least}</td>{empty}</tr>')
    return (
        f"<table><thead><tr><th>policy</th>{head}</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table>"
    )


def _table_row(
    outcome: Outcome,
    outcomes: Sequence[Outcome],
    shown: Sequence[Column],
    colours: dict[str, str],
) -> str:
    """One policy's figures; the best figure of each column is marked."""
    cells = []
    for _, _, value, text, better in shown:
        values = [value(other) for other in outcomes]
        best = max(values) if better > 0 else min(values)
        is_best = value(outcome) == best and min(values) != max(values)
        style = "best" if is_best else ""
        cells.append(f'<td class="{style}">{escape(text(value(outcome)))}</td>')
    colour = f'<i style="background:{colours[outcome.name]}"></i>'
    return f"<tr><td>{colour}{escape(outcome.name)}</td>{''.join(cells)}</tr>"


def _card(title: str, what: str, inside: str) -> str:
    return f"<section><h2>{escape(title)}</h2><p class='soft'>{escape(what)}</p>{inside}</section>"


def _plot(outcomes: Sequence[Outcome], colours: dict[str, str], drawn: str) -> str:
    return legend([(outcome.name, colours[outcome.name]) for outcome in outcomes]) + drawn


def means(
    levels: Sequence[Level],
    start: float,
    span_s: float,
    count: int,
    value: Callable[[Level], float],
) -> list[float]:
    """Return the time-weighted mean of a level in each of `count` equal periods."""
    size = span_s / count
    sums = [0.0] * count
    for index, level in enumerate(levels):
        begin = level.at - start
        end = (levels[index + 1].at if index + 1 < len(levels) else start + span_s) - start
        amount = value(level)
        slot = max(0, int(begin / size))
        while amount and slot < count and slot * size < end:
            sums[slot] += amount * max(0.0, min(end, (slot + 1) * size) - max(begin, slot * size))
            slot += 1
    return [total / size for total in sums]


def _centred(values: Sequence[float], span_s: float) -> list[Point]:
    return [((index + 0.5) * span_s / len(values), value) for index, value in enumerate(values)]


def _dollars(outcomes: Sequence[Outcome], colours: dict[str, str], bound: Bound) -> str:
    rows = [(outcome.name, colours[outcome.name], outcome.figures.usd) for outcome in outcomes]
    return ranks(
        rows, lambda v: f"${v:,.0f}" if v >= 100 else f"${v:,.2f}", mark=("at least", bound.whole)
    )


def _disruptions(outcomes: Sequence[Outcome], colours: dict[str, str]) -> str:
    rows = [
        (outcome.name, colours[outcome.name], outcome.figures.disruptions_per_1000_task_hours)
        for outcome in outcomes
    ]
    return ranks(rows, lambda v: f"{v:,.3g}" if v < 1000 else f"{v:,.0f}")


def _percentiles(outcomes: Sequence[Outcome], colours: dict[str, str]) -> str:
    parts = []
    for name, value in (("p50", "wait_p50_s"), ("p95", "wait_p95_s"), ("p99", "wait_p99_s")):
        rows = [
            (outcome.name, colours[outcome.name], float(getattr(outcome.figures, value)))
            for outcome in outcomes
        ]
        parts.append(f"<p class='soft'>{name}</p>{ranks(rows, span)}")
    return "".join(parts)


def _cost(outcomes: Sequence[Outcome], colours: dict[str, str], span_s: float, bound: Bound) -> str:
    series = []
    for outcome in outcomes:
        rates = means(
            outcome.record.levels,
            outcome.record.started_at,
            span_s,
            BUCKETS,
            lambda level: level.usd_per_hour,
        )
        points, total = [(0.0, 0.0)], 0.0
        for index, rate in enumerate(rates):
            total += rate * span_s / BUCKETS / 3600
            points.append(((index + 1) * span_s / BUCKETS, total))
        series.append(Series(outcome.name, colours[outcome.name], points))
    y = linear(
        max(point[1] for line in series for point in line.points),
        lambda v: f"${v:,.0f}" if v >= 10 or not v else f"${v:.2f}",
        "USD",
    )
    drawn = lines(series, times(span_s, span), y, mark=bound.whole)
    return _plot(outcomes, colours, drawn)


def _machines(outcomes: Sequence[Outcome], colours: dict[str, str], span_s: float) -> str:
    series = [
        Series(
            o.name,
            colours[o.name],
            _centred(
                means(
                    o.record.levels,
                    o.record.started_at,
                    span_s,
                    BUCKETS,
                    lambda level: level.machines,
                ),
                span_s,
            ),
        )
        for o in outcomes
    ]
    most = max(point[1] for line in series for point in line.points)
    y = linear(most, lambda v: f"{v:,g}", "machines")
    return _plot(outcomes, colours, lines(series, times(span_s, span), y))


def _utilisation(
    outcomes: Sequence[Outcome], colours: dict[str, str], span_s: float, count: int = 30
) -> str:
    series = []
    for outcome in outcomes:
        levels, start = outcome.record.levels, outcome.record.started_at
        have = means(levels, start, span_s, count, lambda level: level.cpus)
        used = means(levels, start, span_s, count, lambda level: level.cpus_used)
        parts = [u / h if h else math.nan for u, h in zip(used, have, strict=True)]
        series.append(Series(outcome.name, colours[outcome.name], _centred(parts, span_s)))
    y = linear(1.0, lambda v: f"{v:.0%}", "cpus in use")
    return _plot(outcomes, colours, lines(series, times(span_s, span), y))


def _waits(outcomes: Sequence[Outcome], colours: dict[str, str]) -> str:
    top = max([outcome.record.waits[-1] for outcome in outcomes if outcome.record.waits] or [10.0])
    series = []
    for outcome in outcomes:
        waits_s, every = outcome.record.waits, max(1, outcome.figures.tasks)
        shares = [index / 400 for index in range(1, 401)]
        points = (
            [
                (max(1.0, percentile(waits_s, share)), share * len(waits_s) / every)
                for share in shares
            ]
            if waits_s
            else []
        )
        series.append(Series(outcome.name, colours[outcome.name], points))
    x = waits(top, span, "waited at most (logarithmic)")
    y = linear(1.0, lambda v: f"{v:.0%}", "of all tasks")
    return _plot(outcomes, colours, lines(series, x, y))


def _decisions(outcome: Outcome, colour: str, span_s: float) -> str:
    record = outcome.record
    size = span_s / BAR_BUCKETS
    up, down = [0.0] * BAR_BUCKETS, [0.0] * BAR_BUCKETS
    kinds: dict[str, int] = {}
    for entry in record.entries:
        slot = min(BAR_BUCKETS - 1, int((entry.at - record.started_at) / size))
        kinds[entry.kind] = kinds.get(entry.kind, 0) + max(1, entry.count)
        if entry.kind == "buy":
            up[slot] += entry.count
        elif entry.kind in {"give back", "reclaimed"}:
            down[slot] += entry.count
    bought = Series("bought", COLOURS[2], _starts(up, size))
    given_back = Series("given back", COLOURS[1], _starts(down, size))
    drawn = bars(bought, given_back, times(span_s, span), size)
    counted = ", ".join(f"{kind} {count:,}" for kind, count in kinds.items()) or "nothing"
    name = f'<span style="color:{colour}">&#9632;</span> {escape(outcome.name)}'
    title = f"<h2>{name}: machines bought and given back</h2>"
    what = f"<p class='soft'>{escape(counted)}; looked {outcome.figures.looks:,} times</p>"
    return f"<section>{title}{what}{drawn}{_list(record.entries, record.started_at)}</section>"


def _starts(counts: Sequence[float], size: float) -> list[Point]:
    return [(index * size, count) for index, count in enumerate(counts)]


def _list(entries: Sequence[Entry], start: float) -> str:
    rows = "".join(
        f"<tr><td>{escape(span(entry.at - start))}</td><td>{escape(entry.kind)}</td>"
        f"<td>{entry.count} x {escape(entry.what)}</td>"
        f"<td>{escape(entry.why)}</td></tr>"
        for entry in entries[-ENTRIES_SHOWN:]
    )
    shown = f"the last {min(ENTRIES_SHOWN, len(entries))} of {len(entries):,} with their reasons"
    return f"<details><summary>{shown}</summary><table>{rows}</table></details>"
