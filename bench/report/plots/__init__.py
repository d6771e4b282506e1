"""Plots of runs for papers and pages. Importing this package does not import matplotlib; drawing does.

`figure` draws one kind, `svg` and `content` render it.
"""

from bench.report.plots.figures import KINDS, content, figure, matplotlib_missing, svg
from bench.report.plots.request import FORMATS, Lacking, PlotRequest, Size

__all__ = ["FORMATS", "KINDS", "Lacking", "PlotRequest", "Size", "content", "figure", "matplotlib_missing", "svg"]
