"""Plots as SVG text: lines, steps and bars with axes. Uses no library and no script."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b58900", "#56b4e9", "#7f7f7f")
"""Told apart by people with every kind of colour vision."""

WIDTH, HEIGHT = 640, 250
LEFT, RIGHT, TOP, BOTTOM = 66, 12, 10, 34

Point = tuple[float, float]
Format = Callable[[float], str]


@dataclass(frozen=True, slots=True)
class Series:
    name: str
    colour: str
    points: Sequence[Point]


@dataclass(frozen=True, slots=True)
class Axis:
    """`ticks` are values; `low` and `high` are its ends. A logarithmic axis starts above 0."""

    low: float
    high: float
    ticks: Sequence[float]
    text: Format
    name: str = ""
    log: bool = False

    def at(self, value: float) -> float:
        """Where a value is, from 0 to 1; values beyond the ends are at the ends."""
        low, high = self.low, self.high
        if self.log:
            value, low, high = math.log10(max(value, low)), math.log10(low), math.log10(high)
        return min(1.0, max(0.0, (value - low) / ((high - low) or 1.0)))


def nice(high: float, count: int = 5) -> list[float]:
    """Round ticks from 0 to at least `high`."""
    if high <= 0 or not math.isfinite(high):
        return [0.0, 1.0]
    raw = high / count
    size = 10 ** math.floor(math.log10(raw))
    step = next(size * factor for factor in (1, 2, 2.5, 5, 10) if size * factor >= raw * 0.999)
    return [index * step for index in range(math.ceil(high / step - 1e-9) + 1)]


def linear(high: float, text: Format, name: str = "") -> Axis:
    """An axis from 0."""
    ticks = nice(high)
    return Axis(0.0, ticks[-1], ticks, text, name)


def times(span_s: float, text: Format, name: str = "time") -> Axis:
    """An axis of time from 0, with ticks at whole units."""
    units = (
        10,
        60,
        300,
        600,
        1800,
        3600,
        7200,
        10800,
        21600,
        43200,
        86400,
        172800,
        604800,
        1209600,
        2592000,
        7776000,
    )
    step = next((unit for unit in units if span_s / unit <= 10), units[-1])
    ticks = [index * step for index in range(int(span_s // step) + 1)]
    return Axis(0.0, max(span_s, 1.0), ticks, text, name)


def waits(high: float, text: Format, name: str = "") -> Axis:
    """A logarithmic axis of seconds from 1, with ticks that are whole in their units."""
    top = max(high, 10.0)
    ticks = (1, 3, 10, 30, 60, 180, 600, 1800, 7200, 21600, 86400, 259200, 864000, 2592000)
    return Axis(1.0, top, [float(tick) for tick in ticks if tick <= top], text, name, log=True)


def lines(
    series: Sequence[Series], x: Axis, y: Axis, *, steps: bool = False, mark: float | None = None
) -> str:
    """Draw lines. With `steps` a value holds until the next. `mark` is a dashed level."""
    parts = [_frame(x, y)]
    if mark is not None:
        at = _y(y, mark)
        parts.append(
            f'<line class="mark" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>'
        )
    for line in series:
        path = _path([(_x(x, px), _y(y, py)) for px, py in line.points], steps=steps)
        title = f"<title>{escape(line.name)}</title>"
        parts.append(f'<path d="{path}" stroke="{line.colour}" class="line">{title}</path>')
    return _svg(parts, f"{y.name} by {x.name}")


def bars(up: Series, down: Series, x: Axis, width_s: float, *, height: int = 120) -> str:
    """Draw counts above (`up`) and below (`down`) a line.

    Points are (start of the bucket, count).
    """
    high = max([count for _, count in (*up.points, *down.points)] or [1]) or 1
    middle, reach = height - BOTTOM - (height - BOTTOM - TOP) / 2, (height - BOTTOM - TOP) / 2
    parts = [
        (
            f'<g class="axis">{_x_ticks(x, height)}<line x1="{LEFT}" x2="{WIDTH - RIGHT}"'
            f' y1="{middle:.1f}" y2="{middle:.1f}"/>'
        )
    ]
    parts.append(f'<text x="{LEFT - 6}" y="{TOP + 10}" text-anchor="end">{high:g}</text>')
    parts.append(
        f'<text x="{LEFT - 6}" y="{height - BOTTOM}" text-anchor="end">{high:g}</text></g>'
    )
    wide = max(1.0, (_x(x, width_s) - _x(x, 0.0)) * 0.86)
    for series, sign in ((up, 1), (down, -1)):
        for start, count in series.points:
            if count:
                tall = max(1.0, reach * count / high)
                top = middle - tall if sign > 0 else middle
                title = f"<title>{count:g} {escape(series.name)} at {escape(x.text(start))}</title>"
                parts.append(
                    f'<rect x="{_x(x, start):.1f}" y="{top:.1f}" width="{wide:.1f}"'
                    f' height="{tall:.1f}" fill="{series.colour}">{title}</rect>'
                )
    return _svg(parts, f"{up.name} and {down.name}", height)


def ranks(
    series: Sequence[tuple[str, str, float]], text: Format, *, mark: tuple[str, float] | None = None
) -> str:
    """Draw a horizontal bar for each (name, colour, value). `mark` is a named reference line."""
    row, left, right = 30, 150, 84
    high = max([value for _, _, value in series] + [mark[1] if mark else 0.0]) or 1.0
    reach, height = WIDTH - left - right, row * len(series) + (22 if mark else 6)
    parts = ['<g class="axis">']
    for number, (name, colour, value) in enumerate(series):
        top, wide = number * row + 4, reach * value / high
        parts.append(f'<text x="{left - 8}" y="{top + 15}" text-anchor="end">{escape(name)}</text>')
        parts.append(
            f'<rect x="{left}" y="{top}" width="{max(wide, 1.0):.1f}" height="{row - 10}"'
            f' fill="{colour}"/>'
        )
        parts.append(f'<text x="{left + wide + 6:.1f}" y="{top + 15}">{escape(text(value))}</text>')
    if mark is not None:
        at, bottom = left + reach * mark[1] / high, row * len(series)
        parts.append(f'<line class="mark" x1="{at:.1f}" x2="{at:.1f}" y1="0" y2="{bottom}"/>')
        parts.append(
            f'<text x="{at:.1f}" y="{bottom + 14}" text-anchor="middle">{escape(mark[0])}'
            f" {escape(text(mark[1]))}</text>"
        )
    return _svg([*parts, "</g>"], ", ".join(name for name, _, _ in series), height)


def legend(names: Sequence[tuple[str, str]]) -> str:
    """Names beside their colours, as HTML."""
    items = "".join(
        f'<span><i style="background:{colour}"></i>{escape(name)}</span>' for name, colour in names
    )
    return f'<p class="legend">{items}</p>'


def _frame(x: Axis, y: Axis) -> str:
    parts = ['<g class="axis">']
    for tick in y.ticks:
        at = _y(y, tick)
        parts.append(
            f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>'
        )
        parts.append(
            f'<text x="{LEFT - 6}" y="{at + 3.5:.1f}" text-anchor="end">{escape(y.text(tick))}'
            "</text>"
        )
    parts.append(_x_ticks(x, HEIGHT))
    parts.append(
        f'<text class="name" x="{WIDTH - RIGHT}" y="{HEIGHT - 4}"'
        f' text-anchor="end">{escape(x.name)}</text>'
    )
    middle = (TOP + HEIGHT - BOTTOM) / 2
    parts.append(
        f'<text class="name" transform="translate(11 {middle:.0f}) rotate(-90)"'
        f' text-anchor="middle">{escape(y.name)}</text></g>'
    )
    return "".join(parts)


def _x_ticks(x: Axis, height: int) -> str:
    parts = []
    for tick in x.ticks:
        at = _x(x, tick)
        anchor = "end" if at > WIDTH - RIGHT - 12 else "middle"
        parts.append(
            f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{height - BOTTOM}" y2="{height - BOTTOM + 4}"/>'
        )
        parts.append(
            f'<text x="{at:.1f}" y="{height - BOTTOM + 16}"'
            f' text-anchor="{anchor}">{escape(x.text(tick))}</text>'
        )
    return "".join(parts)


def _path(points: Sequence[Point], *, steps: bool) -> str:
    parts: list[str] = []
    broken = True  # a point without a value breaks the line
    for px, py in points:
        if math.isnan(py):
            broken = True
        elif broken:
            parts.append(f"M{px:.1f} {py:.1f}")
            broken = False
        else:
            parts.append(f"H{px:.1f}V{py:.1f}" if steps else f"L{px:.1f} {py:.1f}")
    return "".join(parts)


def _x(axis: Axis, value: float) -> float:
    return LEFT + axis.at(value) * (WIDTH - LEFT - RIGHT)


def _y(axis: Axis, value: float) -> float:
    return (
        value if math.isnan(value) else HEIGHT - BOTTOM - axis.at(value) * (HEIGHT - BOTTOM - TOP)
    )


def _svg(parts: Sequence[str], label: str, height: int = HEIGHT) -> str:
    head = f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(label)}">'
    return f"{head}{''.join(parts)}</svg>"
