"""A line plot as SVG text."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

_WIDTH, _HEIGHT, _LEFT, _TOP = 640, 360, 60, 40
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7")  # Okabe and Ito: for all eyes
_DASHES = ("", "9 5", "3 4", "1 5")
_TICKS = 5

Points = Sequence[tuple[float, float]]


def line_plot(
    title: str, x_label: str, y_label: str, series: Mapping[str, Points],
    logarithmic: bool = False, low: float | None = None,
) -> str:  # fmt: skip
    """`logarithmic` is the horizontal axis; `low` is where the vertical one begins."""
    xs = [x for points in series.values() for x, _ in points]
    ys = [y for points in series.values() for _, y in points]
    bottom, top = min(ys) if low is None else low, max(ys)
    scale = math.log2 if logarithmic else float
    first, last = scale(min(xs)), scale(max(xs))

    def place(x: float, y: float) -> str:
        right = _LEFT + (scale(x) - first) / (last - first) * (_WIDTH - _LEFT - 20)
        return f"{right:.1f},{_HEIGHT - 50 - (y - bottom) / (top - bottom) * (_HEIGHT - 90):.1f}"

    parts = [_text(_WIDTH / 2, 22, title, "middle"), _text(_WIDTH / 2, _HEIGHT - 8, x_label)]
    parts.append(_text(8, _TOP - 8, y_label, "start"))
    for n in range(_TICKS + 1):
        y = bottom + (top - bottom) * n / _TICKS
        height = float(place(min(xs), y).split(",")[1])
        parts.append(f'<path d="M{_LEFT} {height}H{_WIDTH - 20}" stroke="#ddd"/>')
        parts.append(_text(_LEFT - 6, height + 4, f"{y:.2f}", "end"))
    for x in sorted(set(xs)) if logarithmic else (min(xs), max(xs)):
        parts.append(_text(float(place(x, bottom).split(",")[0]), _HEIGHT - 30, f"{x:g}"))
    for n, (label, points) in enumerate(series.items()):
        colour, dash = _COLOURS[n % len(_COLOURS)], _DASHES[n % len(_DASHES)]
        line = " ".join(place(x, y) for x, y in points)
        style = f'fill="none" stroke="{colour}" stroke-width="2" stroke-dasharray="{dash}"'
        parts.append(f'<polyline points="{line}" {style}/>')
        parts.append(_text(_WIDTH - 28, _TOP + 16 + 18 * n, label, "end", colour))
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}"'
    body = "\n".join(parts)
    return f'{head} font-family="sans-serif" font-size="13">\n{body}\n</svg>\n'


def _text(x: float, y: float, text: str, anchor: str = "middle", colour: str = "#222") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{text}</text>'
