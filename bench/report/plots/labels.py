"""Labels beside points, none of which lies on another one, on a point or outside the panel."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Annotation, Text
from matplotlib.transforms import Bbox

from bench.report.plots.style import GREY

SIZE = 5.5  # of the text, in points
_RADIUS = 3.0  # of a marker
_DISTANCES = (4.5, 8.0, 12.0)
# where a label stands, seen from its point: across and up; best places first
_SIDES = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1))
_TIE = {"arrowstyle": "-", "color": GREY, "linewidth": 0.4, "shrinkA": 0, "shrinkB": _RADIUS}
_ALIGNED = {-1: "right", 0: "center", 1: "left"}
_UPRIGHT = {-1: "top", 0: "center", 1: "bottom"}


def place_labels(
    axes: Axes,
    points: Sequence[tuple[float, float, str]],
    others: Sequence[tuple[float, float]] = (),
    lines: Sequence[tuple[tuple[float, float], tuple[float, float]]] = (),
    optional: int = 0,
) -> list[Annotation]:
    """Put each label where there is room for it; one without room is left out.

    Args:
        axes: of a figure whose panels are in their places.
        points: x, y and the label, the most important first.
        others: points without labels, which are not covered either.
        lines: the ends of level and upright lines that are not covered.
        optional: so many of the last ones have a label only if all of them have room.
    """
    canvas = axes.figure.canvas
    if not isinstance(canvas, FigureCanvasAgg):
        raise TypeError("texts are measured by Agg's canvas")
    renderer = canvas.get_renderer()
    point = axes.figure.dpi / 72
    marks = axes.transData.transform([*((x, y) for x, y, _ in points), *others])
    taken = [Bbox([at - _RADIUS * point, at + _RADIUS * point]) for at in marks]
    taken += [Bbox([ends.min(axis=0), ends.max(axis=0)]) for ends in map(axes.transData.transform, lines)]
    made: list[Annotation] = []
    missed = False
    for index, (x, y, text) in enumerate(points):
        found = None
        for across, up, distance in ((*side, distance) for distance in _DISTANCES for side in _SIDES):
            label = axes.annotate(
                text,
                (x, y),
                (across * distance, up * distance),
                textcoords="offset points",
                ha=_ALIGNED[across],
                va=_UPRIGHT[up],
                fontsize=SIZE,
                # one that stands further off is tied to its point
                arrowprops=None if distance == _DISTANCES[0] else _TIE,
            )
            label.set_in_layout(False)
            box = Text.get_window_extent(label, renderer)
            if _inside(box, axes.bbox) and not any(box.overlaps(other) for other in taken):
                found = label
                taken.append(box)
                break
            label.remove()
        made += [found] if found else []
        missed |= found is None and index >= len(points) - optional
    if missed:
        kept = {text for _, _, text in points[: len(points) - optional]}
        for label in [label for label in made if label.get_text() not in kept]:
            label.remove()
            made.remove(label)
    return made


def _inside(box: Bbox, whole: Bbox) -> bool:
    return whole.x0 <= box.x0 and box.x1 <= whole.x1 and whole.y0 <= box.y0 and box.y1 <= whole.y1
