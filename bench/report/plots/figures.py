"""Kinds of plots by name, and figures as files."""

from __future__ import annotations

import importlib.util
import io
import re
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from bench.errors import UserError
from bench.report.plots.request import Lacking, PlotRequest

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from bench.report.runs import Runs

    Draw = Callable[[Runs, PlotRequest], Figure]

# the modules beside this one that draw them, each with a function `draw`
KINDS = ("pareto", "fraction", "learning", "confusion", "order", "time")
_DOTS = 300  # of a PNG, per inch
# neither the date nor a version: the same run has the same file
_METADATA = {
    "svg": {"Date": None, "Creator": None, "Format": None, "Type": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    "png": {"Software": None},
}
_SVG = "http://www.w3.org/2000/svg"
# attributes of places and paths; a hundredth of a point is finer than any screen
_GEOMETRY = {"d", "x", "y", "transform", "points"}
_LONG = re.compile(r"\d+\.\d{3,}")


def matplotlib_missing() -> list[str]:
    """Return the sentence on a matplotlib that is not installed; nothing where it is."""
    if importlib.util.find_spec("matplotlib") is not None:
        return []
    return ["plots need matplotlib, which is not installed: pip install 'aim-bench[plots]'"]


def figure(kind: str, runs: Runs, request: PlotRequest | None = None) -> Figure:
    """Draw a kind of plot.

    Args:
        kind: one of `KINDS`.
        runs: whose cells are drawn; those that are not done are left out.
        request: what is drawn and how large; by default top-1, as wide as a page.

    Raises:
        Lacking: the runs have nothing for this kind, or matplotlib is not installed.
        UserError: the request names what the runs do not have.
    """
    if kind not in KINDS:
        raise ValueError(f"kind is {kind!r}: expected one of {', '.join(KINDS)}")
    if missing := matplotlib_missing():
        raise Lacking(missing)
    from bench.report.plots.style import styled

    draw: Draw = import_module(f"bench.report.plots.{kind}").draw
    with styled():
        return draw(runs, request or PlotRequest())


def files(
    kinds: Sequence[str], formats: Sequence[str], runs: Runs, request: PlotRequest
) -> tuple[dict[str, bytes], list[str]]:
    """Draw kinds of plots as files.

    Returns:
        The contents by the files' names, `KIND.FORMAT`; and of each kind for which the runs lack something a sentence
        on that.

    Raises:
        UserError: the request names what the runs do not have; all of it at once.
    """
    found: dict[str, bytes] = {}
    lacking: list[str] = []
    problems: list[str] = []
    for kind in kinds:
        try:
            drawn = figure(kind, runs, request)
        except Lacking as error:
            lacking += [f"{kind}: {problem}" for problem in error.problems]
        except UserError as error:
            problems += error.problems
        else:
            found |= {f"{kind}.{format_}": content(drawn, format_) for format_ in formats}
    if problems:
        raise UserError(problems)
    return found, lacking


def content(figure: Figure, format_: str) -> bytes:
    """Return a figure as the content of a file of one of `FORMATS`; fonts are embedded in a PDF, texts stay texts."""
    from bench.report.plots.style import styled

    file = io.BytesIO()
    with styled():
        figure.savefig(file, format=format_, dpi=_DOTS, metadata=_METADATA[format_])
    return file.getvalue()


def svg(figure: Figure) -> str:
    """Return a figure as an <svg> element for a page.

    Its texts are texts. What would meet the rest of the page is left out: ids that nothing refers to, as every figure
    has the same ones, and the style sheet, which would hold for all of it.
    """
    root = ElementTree.fromstring(content(figure, "svg"))
    used = set(re.findall(r"#([\w-]+)", " ".join(value for each in root.iter() for value in each.attrib.values())))
    for each in list(root.iter()):
        if each.get("id") not in used:
            each.attrib.pop("id", None)
        for name in _GEOMETRY & set(each.attrib):
            each.set(name, _LONG.sub(lambda number: f"{float(number[0]):.2f}", each.attrib[name]))
        for sheet in each.findall(f"{{{_SVG}}}style"):
            each.remove(sheet)
    root.attrib |= {"role": "img", "aria-label": str(figure.get_label())}
    root.attrib |= {"stroke-linejoin": "round", "stroke-linecap": "butt"}  # what the style sheet says
    for prefix, space in (("", _SVG), ("xlink", "http://www.w3.org/1999/xlink")):
        ElementTree.register_namespace(prefix, space)
    return ElementTree.tostring(root, encoding="unicode")
