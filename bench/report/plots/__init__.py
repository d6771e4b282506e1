"""Plots of runs for papers and pages. Importing this package does not import matplotlib; drawing does.

`figure` draws one kind, `svg` renders it for a page, `content` as a file; `files` does both for several kinds.
"""

from bench.report.plots.figures import KINDS, content, figure, files, matplotlib_missing, svg
from bench.report.plots.request import FORMATS, Lacking, PlotRequest, Size

__all__ = [
    "FORMATS",
    "KINDS",
    "Lacking",
    "PlotRequest",
    "Size",
    "content",
    "figure",
    "files",
    "matplotlib_missing",
    "svg",
]
