"""Labels beside points, none of which lies on another one, on a point or outside the panel."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.path import Path
from matplotlib.text import Annotation, Text
from matplotlib.transforms import Bbox

from bench.report.plots.style import GREY

SIZE = 5.5  # of the text, in points
_RADIUS = 3.0  # of a marker
_DISTANCES = (4.5, 8.0, 12.0)  # of a label; one that stands further off than the first is tied to its point
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
    panel = _Panel(axes, [*((x, y) for x, y, _ in points), *others], lines)
    found = [panel.label(x, y, text) for x, y, text in points]
    needed = len(points) - optional
    if None in found[needed:]:
        for label in found[needed:]:
            if label is not None:
                label.remove()
        found = found[:needed]
    return [label for label in found if label is not None]


class _Panel:
    """Things that lie in a panel, in pixels."""

    def __init__(
        self,
        axes: Axes,
        points: Sequence[tuple[float, float]],
        lines: Sequence[tuple[tuple[float, float], tuple[float, float]]],
    ) -> None:
        canvas = axes.figure.canvas
        if not isinstance(canvas, FigureCanvasAgg):
            raise TypeError("texts are measured by Agg's canvas")
        self._axes, self._renderer = axes, canvas.get_renderer()
        radius = _RADIUS * axes.figure.dpi / 72
        self._drawn = [Bbox([at - radius, at + radius]) for at in axes.transData.transform(points)]
        for ends in map(axes.transData.transform, lines):
            self._drawn.append(Bbox([ends.min(axis=0), ends.max(axis=0)]))
        self._labels: list[Bbox] = []
        self._ties: list[Path] = []

    def label(self, x: float, y: float, text: str) -> Annotation | None:
        """Put a label into the first place that is free; None where none is."""
        for distance in _DISTANCES:
            for across, up in _SIDES:
                label = self._axes.annotate(
                    text,
                    (x, y),
                    (across * distance, up * distance),
                    textcoords="offset points",
                    ha=_ALIGNED[across],
                    va=_UPRIGHT[up],
                    fontsize=SIZE,
                    arrowprops=_TIE if distance > _DISTANCES[0] else None,
                )
                label.set_in_layout(False)
                label.update_positions(self._renderer)
                box = Text.get_window_extent(label, self._renderer)  # without the line to its point
                ties = []
                if distance > _DISTANCES[0]:
                    ties.append(Path(np.stack([box.get_points().mean(axis=0), self._axes.transData.transform((x, y))])))
                if self._free(box, ties):
                    self._labels.append(box)
                    self._ties += ties
                    return label
                label.remove()
        return None

    def _free(self, box: Bbox, ties: Sequence[Path]) -> bool:
        whole = self._axes.bbox
        inside = whole.x0 <= box.x0 and box.x1 <= whole.x1 and whole.y0 <= box.y0 and box.y1 <= whole.y1
        covers = any(box.overlaps(other) for other in (*self._drawn, *self._labels))
        return inside and not covers and not _crossing(ties, self._labels) and not _crossing(self._ties, [box])


def _crossing(lines: Sequence[Path], boxes: Sequence[Bbox]) -> bool:
    return any(line.intersects_bbox(box, filled=False) for line in lines for box in boxes)
