"""Charts as inline SVG: curves over steps, accuracy by length, intervals. Colours come from the page's style sheet."""

import json
import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from markupsafe import Markup

WIDTH, HEIGHT = 340, 180
LEFT, RIGHT, TOP, BOTTOM = 46, 10, 10, 32
SMOOTH_FROM = 15  # points from which a curve gets a moving average

Point = Sequence[float | None]


def ticks(low: float, high: float, about: int = 4) -> list[float]:
    """Return round tick values (1, 2, 2.5 or 5 times a power of ten apart), `about` steps, enclosing [low, high]."""
    if not low < high:
        pad = abs(low) * 0.1 or 1.0
        low, high = low - pad, high + pad
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= 0.85 * raw)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def number(value: float | None) -> str:
    """Format a number with three significant digits: 0.5, 1.23, 12,300, 2e-5; a dash for None or NaN."""
    if value is None or not math.isfinite(value):
        return "–"
    if value == 0:
        return "0"
    if abs(value) < 1e-3:
        mantissa, exponent = f"{value:.2e}".split("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def moving_mean(values: Sequence[float], width: int) -> list[float]:
    """Return centred moving means over `width` values; windows shrink symmetrically at the ends."""
    sides = [min(width // 2, i, len(values) - 1 - i) for i in range(len(values))]
    return [sum(values[i - side : i + side + 1]) / (2 * side + 1) for i, side in enumerate(sides)]


def line(name: str, curve: Sequence[Point], share: bool = False) -> Markup:
    """Draw a curve of pairs [step, value]; None is a gap. `share` keeps the axis within [0, 1]."""
    points = [(float(step), float(value)) for step, value in curve if step is not None and value is not None]
    if not points:
        return Markup('<p class="none">no values logged</p>')
    steps, values = [p[0] for p in points], [p[1] for p in points]
    marks = ticks(min(values), max(values))
    if share:  # a value above 1 (utilisation against a peak measured on a busy machine) keeps its axis
        marks = [mark for mark in marks if -1e-9 <= mark <= 1 + 1e-9] or marks
    bottom, top = min(marks[0], *values), max(marks[-1], *values)
    first, last = min(steps), max(steps)

    def x(step: float) -> float:
        share_of_width = (step - first) / (last - first) if last > first else 0.5
        return LEFT + share_of_width * (WIDTH - LEFT - RIGHT)

    def y(value: float) -> float:
        return TOP + (top - value) / ((top - bottom) or 1) * (HEIGHT - TOP - BOTTOM)

    pixels = [(round(x(step), 1), round(y(value), 1)) for step, value in points]
    smooth = len(values) >= SMOOTH_FROM
    label = f"{name}: from {number(values[0])} at step {number(first)} to {number(values[-1])} at step {number(last)}"
    hover = [[*pixel, f"step {step:g}: {number(v)}"] for pixel, (step, v) in zip(pixels, points, strict=True)]
    shapes = []
    for segment in _segments(curve):
        path = " ".join(f"{round(x(step), 1)},{round(y(value), 1)}" for step, value in segment)
        shapes.append(f'<polyline class="{"raw" if smooth else "bold"}" points="{path}"/>')
        if len(segment) == 1:
            step, value = segment[0]
            shapes.append(f'<circle class="dot" cx="{x(step):.1f}" cy="{y(value):.1f}" r="2.5"/>')
    if smooth:
        means = moving_mean(values, max(5, len(values) // 10 | 1))
        path = " ".join(f"{pixel[0]},{round(y(mean), 1)}" for pixel, mean in zip(pixels, means, strict=True))
        shapes.append(f'<polyline class="bold" points="{path}"/>')
    rows = [(round(y(mark), 1), number(mark)) for mark in marks]
    anchors = {first: "middle"} if first == last else {first: "start", last: "end"}
    columns = [(round(x(step), 1), f"{step:g}", anchor) for step, anchor in anchors.items()]
    return _frame(label, hover, rows, columns, "step", shapes)


def _frame(
    label: str,
    hover: Sequence[Sequence[Any]],
    rows: Sequence[tuple[float, str]],
    columns: Sequence[tuple[float, str, str]],
    axis: str,
    shapes: Sequence[str],
) -> Markup:
    """Draw shapes (SVG elements) on a grid, in pixels.

    `hover` holds x, y and text of each point that the mouse finds, `rows` y and text of each horizontal line, `columns`
    x, text and anchor of each tick below.
    """
    parts = [
        f'<svg class="line" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}" '
        f'data-points="{escape(json.dumps(hover))}">'
    ]
    for at, text in rows:
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at}" y2="{at}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 6}" y="{at + 4}" text-anchor="end">{text}</text>')
    for at, text, anchor in columns:
        parts.append(f'<text class="tick" x="{at}" y="{HEIGHT - 14}" text-anchor="{anchor}">{text}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text class="axis" x="{middle}" y="{HEIGHT - 4}" text-anchor="middle">{axis}</text>')
    end = '<g class="hover" visibility="hidden"><circle r="3.5"/><text y="20"></text></g></svg>'
    return Markup("".join([*parts, *shapes, end]))


def _segments(curve: Sequence[Point]) -> list[list[tuple[float, float]]]:
    segments: list[list[tuple[float, float]]] = [[]]
    for step, value in curve:
        if step is None or value is None:
            segments.append([])
        else:
            segments[-1].append((step, value))
    return [segment for segment in segments if segment]


def bins(name: str, groups: Sequence[Mapping[str, Any]]) -> Markup:
    """Draw accuracy (0 to 1) over mean tokens, one dot with interval per bin (`breakdown.by_length`)."""
    shown = [group for group in groups if group["value"] is not None]
    if not shown:
        return Markup('<p class="none">no decided completions</p>')
    tokens = [float(group["mean_tokens"]) for group in shown]
    first, last = min(tokens), max(tokens)

    def x(value: float) -> float:
        inner = WIDTH - LEFT - RIGHT - 20  # keep dots inside the frame
        return round(LEFT + 10 + ((value - first) / (last - first) if last > first else 0.5) * inner, 1)

    def y(value: float) -> float:
        return round(TOP + (1 - value) * (HEIGHT - TOP - BOTTOM), 1)

    label = f"{name}: " + "; ".join(f"{number(t)} tokens {g['value']:.0%}" for t, g in zip(tokens, shown, strict=True))
    hover, shapes = [], []
    for at, group in zip(tokens, shown, strict=True):
        low, high = group["tokens"]
        text = f"{low:,} to {high:,} tokens: {group['value']:.1%} of {group['n_decided']:,}"
        hover.append((x(at), y(group["value"]), text))
        ends = f'y1="{y(group["low"])}" y2="{y(group["high"])}"'
        shapes.append(f'<line class="range" x1="{x(at)}" x2="{x(at)}" {ends}/>')
    path = " ".join(f"{px},{py}" for px, py, _ in hover)
    shapes.append(f'<polyline class="raw" points="{path}"/>')
    shapes += [f'<circle class="dot" cx="{px}" cy="{py}" r="3.2"/>' for px, py, _ in hover]
    rows = [(y(mark), f"{mark:.0%}") for mark in (0, 0.25, 0.5, 0.75, 1)]
    columns = [(x(at), number(at), "middle") for at in dict.fromkeys((first, last))]
    return _frame(label, hover, rows, columns, "tokens", shapes)


def interval(value: float | None, low: float | None, high: float | None) -> Markup:
    """Draw a share with its interval on a line from 0 to 1; empty without a value."""
    if value is None or low is None or high is None:
        return Markup("")
    x, a, b = (round(2 + 116 * v, 1) for v in (value, low, high))
    return Markup(
        '<svg class="interval" viewBox="0 0 120 12" aria-hidden="true">'
        '<line class="grid" x1="2" x2="118" y1="6" y2="6"/>'
        f'<line class="range" x1="{a}" x2="{max(b, a + 1)}" y1="6" y2="6"/>'
        f'<circle class="dot" cx="{x}" cy="6" r="3.2"/></svg>'
    )
