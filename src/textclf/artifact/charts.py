"""Plots of a model's figures as SVG: lines, confusions, bars. On the report's page they take its colours, beside the
model card they bring their own.

Drawn by hand rather than by a plotting library: colours follow the reader's theme, text stays text, and a matrix of 77
labels is 60 KB. Built as an element tree, so that a name can never be read as markup.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from xml.etree import ElementTree as Tree  # writes only

import numpy as np

from textclf.metrics import Bin, Confusion

Point = tuple[float, float]

WHOLE_MATRIX = 150
"""Labels up to which all of them are drawn: more are too small to see."""
ZOOMED = 16
"""Labels in the matrix of the most confused ones."""

STYLE = """
text { font-family: system-ui, "DejaVu Sans", Arial, sans-serif; fill: #1c1f23; }
.matrix text { font-family: ui-monospace, "DejaVu Sans Mono", monospace; }
.ground { fill: #ffffff; }
.axis { fill: #5a626c; }
.end { text-anchor: end; }
.middle { text-anchor: middle; }
.grid { stroke: #dcdfe3; stroke-width: 0.5; }
.curve { fill: none; stroke-width: 2; }
.curve.c0 { stroke: #1f6fb2; }
.curve.c1 { stroke: #c2410c; stroke-dasharray: 6 3; }
.dot.c0, .right { fill: #1f6fb2; }
.dot.c1, .wrong { fill: #c2410c; }
.count.dark { fill: #ffffff; }
.track { fill: #e8ebee; }
.bar .fill { fill: #1f6fb2; }
.whisker { stroke: #1c1f23; stroke-width: 2; }
"""
"""Colours of a plot by itself: those of the report's page in a light theme."""

_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def lines(title: str, series: Mapping[str, Sequence[Point]], *, unit: str, along: str = "step") -> str:
    """Curves from 0 to 1 or more: name -> points (where, value), one or more in all; unit: of the values.

    along: what the values are drawn over, an optimizer's steps unless said otherwise.
    """
    width, height, left, bottom, top, right = 500, 220, 48, 34, 26, 14
    points = [point for curve in series.values() for point in curve]
    last = max([1.0, *(step for step, _ in points)])
    ticks = _ticks(min(value for _, value in points), max(value for _, value in points))

    def place(step: float, value: float) -> Point:
        share = (value - ticks[0]) / (ticks[-1] - ticks[0])
        return left + (width - left - right) * step / last, height - bottom - (height - bottom - top) * share

    svg = _svg(width, height, f"{title}: {', '.join(_in_words(name, curve) for name, curve in series.items())}")
    for tick in ticks:
        _, y = place(0, tick)
        _line(svg, (left, y), (width - right, y), "grid")
        _text(svg, left - 6, y + 4, f"{tick:g}", "axis end")
    for step in (tick for tick in _ticks(0, last) if tick <= last):
        _text(svg, place(step, ticks[0])[0], height - bottom + 16, f"{step:,g}", "axis middle")
    _text(svg, width - right, height - 4, along, "axis end")
    _text(svg, 4, 14, unit, "axis")
    legend = float(left + 90)
    for number, (name, curve) in enumerate(series.items()):
        path = " ".join("{:.1f},{:.1f}".format(*place(*point)) for point in curve)
        _add(svg, "polyline", {"points": path, "class": f"curve c{number}"})
        if len(curve) < 40:
            for point in curve:
                x, y = place(*point)
                dot = _add(svg, "circle", {"cx": f"{x:.1f}", "cy": f"{y:.1f}", "r": "3", "class": f"dot c{number}"})
                _add(dot, "title").text = f"{name}, {along} {point[0]:,g}: {point[1]:.4f}"
        if len(series) > 1:
            _line(svg, (legend, 10), (legend + 18, 10), f"curve c{number}")
            _text(svg, legend + 24, 14, name, "axis")
            legend += 40 + 7 * len(name)
    return _written(svg)


def reliability(bins: Sequence[Bin], *, pairs: bool) -> str:
    """Whether scores mean what they say: how often the answers of a bin are right over their mean score.

    pairs: of text and label, where a text may have several labels.
    """
    title = "Share of texts that have the label, by its score" if pairs else "Share answered rightly, by score"
    measured = {"measured": [(one.confidence, one.accuracy) for one in bins], "ideal": [(0.0, 0.0), (1.0, 1.0)]}
    return lines(title, measured, unit="have the label" if pairs else "answered rightly", along="mean score")


def coverage(points: Sequence[Point]) -> str:
    """How right the surest answers are: (share answered, share of these that is right), one or more."""
    title = "Share answered rightly, of the texts with the highest scores"
    return lines(title, {"share answered rightly": sorted(points)}, unit="answered rightly", along="share answered")


def confusion_matrices(support: Mapping[str, int], pairs: Sequence[Confusion]) -> tuple[str, str]:
    """The matrix of the most confused labels, or of all where they are few, and that of all labels; either may be "".

    support: label -> its rows in the split. pairs: all confusions, most frequent first. Labels without a row that were
    never answered are left out.
    """
    answered = {pair.predicted for pair in pairs}
    names = [name for name in support if support[name] or name in answered]
    all_drawn = len(names) <= WHOLE_MATRIX
    zoomed = set(most_confused(pairs) if len(names) > ZOOMED else names)
    order = by_similarity(names if all_drawn else list(zoomed), pairs)
    near = matrix({name: support[name] for name in order if name in zoomed}, pairs, counts=True) if zoomed else ""
    if len(zoomed) == len(names) or not all_drawn:
        return near, ""
    return near, matrix({name: support[name] for name in order}, pairs, counts=False)


def standalone(drawn: str) -> str:
    """A plot as a file of its own, on white and in colours of its own, from what a function above has drawn."""
    svg = Tree.fromstring(drawn)  # noqa: S314  # our own, just written
    svg.set("xmlns", "http://www.w3.org/2000/svg")
    ground = Tree.Element("rect", {"width": "100%", "height": "100%", "class": "ground"})
    style = Tree.Element("style")
    style.text = STYLE
    svg[:0] = [style, ground]
    return _written(svg)


def bar(share: float, low: float | None = None, high: float | None = None) -> str:
    """A share, 0 to 1, as a bar the size of a word, with its interval; beside the number, so not read out."""
    svg = Tree.Element("svg", {"viewBox": "0 0 100 12", "class": "bar", "aria-hidden": "true"})
    _add(svg, "rect", {"width": "100", "height": "12", "class": "track"})
    _add(svg, "rect", {"width": f"{100 * share:.1f}", "height": "12", "class": "fill"})
    if low is not None and high is not None:
        _line(svg, (100 * low, 6), (100 * high, 6), "whisker")
    return _written(svg)


def matrix(support: Mapping[str, int], confusions: Sequence[Confusion], *, counts: bool) -> str:
    """A confusion matrix, rows being true labels, in the order of `support` (label -> its rows in the split).

    Confusions with other labels are left out. counts: write them into the cells.
    """
    names = list(support)
    cell, font = (30, 12) if counts else (10, 9)
    left = top = 10 + 0.62 * font * max(len(_short(name)) for name in names)  # monospaced
    side = cell * len(names)
    svg = _svg(left + side + 6, top + side + 6, f"Confusion matrix of {len(names)} labels; the table has its figures")
    svg.set("class", "matrix zoomed" if counts else "matrix")
    place = {name: number for number, name in enumerate(names)}
    for name, number in place.items():
        middle = cell * (number + 0.5)
        _text(svg, left - 5, top + middle + font / 3, _short(name), "name end", size=font, full=name)
        column = _text(svg, 0, 0, _short(name), "name", size=font, full=name)
        column.set("transform", f"translate({left + middle + font / 3:.1f} {top - 5:.1f}) rotate(-90)")
        _line(svg, (left, top + cell * number), (left + side, top + cell * number), "grid")
        _line(svg, (left + cell * number, top), (left + cell * number, top + side), "grid")
    wrong = dict.fromkeys(names, 0)
    for pair in confusions:
        if pair.target in wrong:
            wrong[pair.target] += pair.count
    right = [
        Confusion(name, name, support[name] - wrong[name], 1 - wrong[name] / support[name])
        for name in names
        if support[name] > wrong[name]
    ]
    for pair in (*right, *confusions):
        if pair.target not in place or pair.predicted not in place:
            continue
        kind = "right" if pair.target == pair.predicted else "wrong"
        x, y = left + cell * place[pair.predicted], top + cell * place[pair.target]
        shade = f"{0.15 + 0.85 * math.sqrt(pair.share):.2f}"  # by the root, so that a rare confusion can be seen
        square = _add(
            svg,
            "rect",
            {
                "x": f"{x:.1f}",
                "y": f"{y:.1f}",
                "width": f"{cell}",
                "height": f"{cell}",
                "class": kind,
                "fill-opacity": shade,
            },
        )
        what = "answered rightly" if kind == "right" else f"answered {pair.predicted}"
        _add(square, "title").text = f"{pair.target}: {pair.count:,} of {support[pair.target]:,} {what}"
        if counts:
            ink = "count dark" if pair.share > 0.3 else "count"
            _text(svg, x + cell / 2, y + cell / 2 + 4, f"{pair.count:,}", f"{ink} middle", size=font - 1)
    return _written(svg)


def by_similarity(names: Sequence[str], confusions: Sequence[Confusion]) -> list[str]:
    """The labels in an order in which those that are confused stand side by side: leaves of an average-linkage tree,
    ordered optimally (Bar-Joseph 2001)."""
    if len(names) < 3:
        return list(names)
    from scipy.cluster.hierarchy import leaves_list, linkage

    place = {name: number for number, name in enumerate(names)}
    share_CC = np.zeros((len(names), len(names)))
    for pair in confusions:
        if pair.target in place and pair.predicted in place:
            share_CC[place[pair.target], place[pair.predicted]] = pair.share
    near_CC = share_CC + share_CC.T
    distance_P = 1 - near_CC[np.triu_indices(len(names), 1)] / max(near_CC.max(), 1e-9)
    tree = linkage(distance_P, "average", optimal_ordering=True)
    return [names[number] for number in leaves_list(tree)]


def most_confused(confusions: Sequence[Confusion]) -> list[str]:
    """The labels of the most frequent confusions, up to ZOOMED."""
    found: dict[str, None] = {}
    for pair in confusions:
        both = {**found, pair.target: None, pair.predicted: None}
        if len(both) > ZOOMED:
            break
        found = both
    return list(found)


def sparkline(values: Sequence[float], *, width: int = 40) -> str:
    """Numbers as a line of block characters, at most `width` of them, each the mean of a stretch."""
    blocks = "▁▂▃▄▅▆▇█"
    if not values:
        return ""
    stretches = np.array_split(np.array(values, dtype=float), min(width, len(values)))
    means = [float(stretch.mean()) for stretch in stretches]
    low, high = min(means), max(means)
    return "".join(blocks[round((mean - low) / (high - low) * 7) if high > low else 3] for mean in means)


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers, four to seven of them, from at most `low` to at least `high`."""
    if high - low < 1e-9:
        low, high = low - max(abs(low), 1) * 0.05, high + max(abs(high), 1) * 0.05
    raw = (high - low) / 4
    size = 10 ** math.floor(math.log10(raw))
    gap = size * next(step for step in (1, 2, 2.5, 5, 10) if step * size >= raw * 0.999)
    first, last = math.floor(low / gap + 1e-9), math.ceil(high / gap - 1e-9)
    return [round(number * gap, 12) for number in range(first, last + 1)]


def _in_words(name: str, curve: Sequence[Point]) -> str:
    return f"{name} from {curve[0][1]:.4g} to {curve[-1][1]:.4g}" if curve else name


def _short(name: str) -> str:
    return name if len(name) <= 48 else name[:47] + "…"


def _svg(width: float, height: float, description: str) -> Tree.Element:
    sizes = {"width": f"{width:g}", "height": f"{height:g}", "viewBox": f"0 0 {width:g} {height:g}"}
    return Tree.Element("svg", {**sizes, "role": "img", "aria-label": description})


def _add(parent: Tree.Element, kind: str, attributes: Mapping[str, str] | None = None) -> Tree.Element:
    return Tree.SubElement(parent, kind, dict(attributes or {}))


def _line(svg: Tree.Element, start: Point, end: Point, kind: str) -> None:
    ends = zip(("x1", "y1", "x2", "y2"), (*start, *end), strict=True)
    _add(svg, "line", {**{name: f"{value:.1f}" for name, value in ends}, "class": kind})


def _text(
    svg: Tree.Element, x: float, y: float, words: str, kind: str, *, size: int = 12, full: str | None = None
) -> Tree.Element:
    element = _add(svg, "text", {"x": f"{x:.1f}", "y": f"{y:.1f}", "class": kind, "font-size": f"{size}"})
    element.text = words
    if full is not None and full != words:
        _add(element, "title").text = full
    return element


def _written(svg: Tree.Element) -> str:
    # What XML cannot hold comes from names alone.
    return _NO_XML.sub("\N{REPLACEMENT CHARACTER}", Tree.tostring(svg, encoding="unicode"))
