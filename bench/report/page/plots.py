"""Plots of a page, as <svg> elements that follow its light and dark colours."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any
from xml.etree import ElementTree

from bench.report.runs import Runs

# kind -> heading; learning curves and classes are drawn by the page's script, for the rows that its reader chooses
_KINDS = {
    "pareto": "Accuracy against costs",
    "fraction": "Accuracy over the share of training videos",
    "order": "Order of the frames",
    "time": "Where the time goes",
}
_MOST = 100  # rows: more are too many for a plot
_PACKAGE = "bench.report.plots"
_SVG = "http://www.w3.org/2000/svg"
_LINK = "{http://www.w3.org/1999/xlink}href"
_LEFT_OUT = {"metadata", "style", "script", "foreignObject", "a", "image"}
# greys up to this one are such a colour of the page, which is dark or light
_PAGE_COLOURS = {0x3F: "currentColor", 0x9F: "var(--faint)", 0xF7: "var(--line)", 0xFF: "var(--paper)"}
_COLOUR = re.compile(r"#([0-9a-f]{2})([0-9a-f]{2})([0-9a-f]{2})\b", re.IGNORECASE)


@dataclass(frozen=True)
class Plot:
    """A plot as an <svg> element, with its heading."""

    heading: str
    svg: str


def plots_of(runs: Runs, rows: int) -> tuple[list[Plot], list[str]]:
    """Return the plots that there are of runs with so many rows, and sentences on what is not there."""
    if rows > _MOST:
        return [], [f"no plots of {rows:,} rows: at most {_MOST} can be told apart"]
    if find_spec("matplotlib") is None:
        return [], ["no plots: matplotlib is not installed (pip install 'aim-bench[plots]')"]
    if find_spec(_PACKAGE) is None:
        return [], []
    plots = import_module(_PACKAGE)
    found = []
    for kind, heading in _KINDS.items():
        try:
            found.append(Plot(heading, embedded(plots.svg(plots.figure(kind, runs)), kind)))
        except plots.Lacking:  # a run of one training fraction has no plot over it
            continue
    return found, []


def embedded(svg: str, prefix: str) -> str:
    """Return an <svg> element for a page: ids of its own, the page's colours, no styles or scripts for the page.

    Args:
        prefix: of its ids, another one for each plot of a page.

    Raises:
        ElementTree.ParseError: it is not XML.
    """
    root = ElementTree.fromstring(svg[svg.index("<svg") :])
    for parent in list(root.iter()):
        for child in list(parent):
            if _local(child.tag) in _LEFT_OUT:
                parent.remove(child)
    for element in root.iter():
        for name, value in list(element.attrib.items()):
            if _local(name).startswith("on"):
                del element.attrib[name]
            elif name == "id":
                element.set(name, f"{prefix}-{value}")
            elif name == _LINK or name == "href":
                element.set(name, value.replace("#", f"#{prefix}-", 1) if value.startswith("#") else "#")
            else:
                element.set(name, _coloured(value.replace("url(#", f"url(#{prefix}-"), name))
    ElementTree.register_namespace("", _SVG)
    ElementTree.register_namespace("xlink", "http://www.w3.org/1999/xlink")
    return ElementTree.tostring(root, encoding="unicode")


def _local(name: Any) -> str:
    return str(name).rpartition("}")[2]


def _coloured(value: str, name: str) -> str:
    """An attribute whose greys are the page's."""
    return _COLOUR.sub(_page_colour, value) if name in ("style", "fill", "stroke") else value


def _page_colour(found: re.Match[str]) -> str:
    red, green, blue = (int(part, 16) for part in found.groups())
    if not red == green == blue:
        return found[0]
    return next(colour for up_to, colour in _PAGE_COLOURS.items() if red <= up_to)
