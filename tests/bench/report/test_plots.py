"""Accuracy against costs: points, intervals, front and labels; and figures as files."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.text import Annotation, Text
from PIL import Image

from bench.report.plots import KINDS, Lacking, PlotRequest, Size, content, figure, svg
from bench.report.plots.pareto import COSTS, front
from bench.report.plots.rows import PlotRow
from bench.report.plots.style import COLOURS, MARKERS, Looks
from bench.report.runs import Runs
from bench.stats.bootstrap import accuracy
from tests.bench import make
from tests.bench.command import quoting
from tests.bench.report import plotted
from tests.reference import pareto as reference

# backbone, strategy -> videos that seeds 0 and 1 have right, trained parameters, clips/s of inference
ROWS: dict[tuple[str, str], tuple[tuple[int, int], int, float]] = {
    ("vit:tiny", "frozen"): ((28, 31), 1_000, 900.0),
    ("vit:tiny", "joint"): ((55, 57), 60_000, 500.0),
    ("vit:tiny", "full"): ((30, 30), 500_000, 800.0),
    ("clip:tiny", "frozen"): ((33, 34), 1_200, 700.0),
    ("clip:tiny", "joint"): ((50, 58), 61_000, 450.0),
}
ONE = PlotRequest(against=("infer_clips_per_s",))
NAME = "a<b>&$x$"  # of a head: text everywhere, whatever it means elsewhere


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    cells = {
        make.cell(backbone=backbone, strategy=strategy, options={}, seed=seed): (counts[seed], params, rate)
        for (backbone, strategy), (counts, params, rate) in ROWS.items()
        for seed in (0, 1)
    }
    run = plotted.opened(tmp_path_factory.mktemp("run"), [*cells])
    for cell, (count, params, rate) in cells.items():
        plotted.add(run, cell, [count], trained_params=params, infer_clips_per_s=rate)
    return Runs([run])


@pytest.fixture(scope="module")
def drawn(runs: Runs) -> Figure:
    return figure("pareto", runs)


@pytest.fixture(scope="module")
def one(runs: Runs) -> Figure:
    """A panel alone."""
    return figure("pareto", runs, ONE)


def points(axes: Any) -> dict[str, Any]:
    """The points with their error bars, by label."""
    return {container.get_label(): container for container in axes.containers}


def test_the_front_is_the_one_of_its_definition() -> None:
    generator = np.random.default_rng(0)
    for _ in range(300):
        count = int(generator.integers(1, 12))
        costs, accuracies = generator.integers(0, 6, size=(2, count)).astype(float)  # many ties
        found = front(costs, accuracies)
        assert set(found) == reference.front(costs, accuracies)
        assert [costs[index] for index in found] == sorted(costs[index] for index in found)
        assert len(found) == len(set(found))


def test_a_panel_a_cost_with_a_point_a_row_and_its_interval(drawn: Figure) -> None:
    assert [axes.get_xlabel() for axes in drawn.axes] == [cost.label for cost in COSTS]
    assert [axes.get_xscale() for axes in drawn.axes] == ["log", *["linear"] * 5]
    for place, key in ((0, 1), (2, 2)):
        found = points(drawn.axes[place])
        assert set(found) == {f"{backbone}@none {strategy}" for backbone, strategy in ROWS}
        for (backbone, strategy), row in ROWS.items():
            point, _, (bar,) = found[f"{backbone}@none {strategy}"]
            cost = row[key] / 1e6 if key == 1 else row[key]
            expected = accuracy(np.stack([plotted.right(count) for count in row[0]]))
            assert point.get_xydata()[0] == pytest.approx([cost, expected.value])
            (ends,) = bar.get_segments()
            assert ends == pytest.approx(np.array([[cost, expected.low], [cost, expected.high]]))
            assert expected.low < expected.value < expected.high


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("params", [(98_765, 98_765), (98_765, 98_765.00000000001)])
def test_costs_that_are_equal_but_for_their_last_digits_have_an_axis(
    tmp_path: Path, params: tuple[float, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    cells = [make.cell(), make.cell(strategy="frozen", options={})]
    run = plotted.opened(tmp_path, cells)
    for cell, count in zip(cells, (50, 30), strict=True):
        plotted.add(run, cell, [count])
    values = dict(zip(("joint", "frozen"), params, strict=True))
    known = PlotRow.values.func
    monkeypatch.setattr(
        PlotRow, "values", property(lambda row: {**known(row), "trained_params_m": values[row.method] / 1e6})
    )
    drawn = figure("pareto", Runs([run]), PlotRequest(against=("trained_params_m",)))
    low, high = drawn.axes[0].get_xlim()
    assert drawn.axes[0].get_xscale() == "log" and low < min(params) / 1.1e6 and max(params) / 0.9e6 < high
    svg(drawn)


def test_backbones_have_colours_and_strategies_markers(drawn: Figure) -> None:
    found = points(drawn.axes[0])
    looks = {
        (label.split("@")[0], label.split()[1]): (container[0].get_color(), container[0].get_marker())
        for label, container in found.items()
    }
    assert {colour for (backbone, _), (colour, _) in looks.items() if backbone == "vit:tiny"} == {COLOURS[0]}
    assert {colour for (backbone, _), (colour, _) in looks.items() if backbone == "clip:tiny"} == {COLOURS[1]}
    markers = {strategy: {m for (_, s), (_, m) in looks.items() if s == strategy} for _, strategy in ROWS}
    assert all(len(each) == 1 for each in markers.values()) and len(set.union(*markers.values())) == 3
    entries = [[text.get_text() for text in legend.get_texts()] for legend in drawn.legends]
    assert entries == [["vit:tiny@none", "clip:tiny@none"], ["frozen", "joint", "full"]]


@pytest.mark.parametrize(("place", "key", "sign"), [(0, 1, 1), (2, 2, -1)])
def test_the_front_is_drawn(drawn: Figure, place: int, key: int, sign: int) -> None:
    (line,) = [line for line in drawn.axes[place].lines if line.get_label() == "front"]
    costs = [float(row[key]) / (1e6 if key == 1 else 1) for row in ROWS.values()]
    accuracies = [100 * sum(row[0]) / 2 / plotted.VIDEOS for row in ROWS.values()]
    kept = reference.front([sign * cost for cost in costs], accuracies)
    assert 1 < len(kept) < len(ROWS)
    expected = sorted((costs[index], accuracies[index]) for index in kept)
    assert np.array(sorted(map(tuple, line.get_xydata()))) == pytest.approx(np.array(expected))


@pytest.mark.parametrize("size", ["page", "column"])
def test_labels_lie_on_nothing(runs: Runs, drawn: Figure, size: str) -> None:
    shown = drawn if size == "page" else figure("pareto", runs, PlotRequest(size=Size.parsed(size)))
    shown.draw_without_rendering()
    total = 0
    for axes in shown.axes:
        labels = [text for text in axes.texts if isinstance(text, Annotation)]
        boxes = [Text.get_window_extent(label) for label in labels]
        marks = [axes.transData.transform(container[0].get_xydata()[0]) for container in axes.containers]
        total += len(labels)
        for place, box in enumerate(boxes):
            assert not any(box.overlaps(other) for other in boxes[:place])
            assert not any(box.contains(*mark) for mark in marks)
            assert axes.bbox.contains(*box.min) and axes.bbox.contains(*box.max)
    assert total >= 6 * 2  # some have no room, on no panel all


@pytest.mark.parametrize("size", ["column", "5x4"])
def test_nothing_is_cut_off(runs: Runs, size: str) -> None:
    shown = figure("pareto", runs, PlotRequest(size=Size.parsed(size)))
    shown.draw_without_rendering()
    whole = shown.bbox
    for part in [*(axes.get_tightbbox() for axes in shown.axes), *(each.get_window_extent() for each in shown.legends)]:
        assert whole.x0 - 1 <= part.x0 and part.x1 <= whole.x1 + 1
        assert whole.y0 - 1 <= part.y0 and part.y1 <= whole.y1 + 1
    lowest = min(axes.get_tightbbox().y0 for axes in shown.axes)
    assert max(legend.get_window_extent().y1 for legend in shown.legends) <= lowest + 1


def test_rows_without_predictions_have_points_without_intervals(tmp_path: Path) -> None:
    cells = [make.cell(), make.cell(strategy="frozen", options={})]
    run = plotted.opened(tmp_path, cells)
    run.write(make.done(cells[0], top1=70))
    run.write(make.done(cells[1], top1=40))
    found = points(figure("pareto", Runs([run]), PlotRequest(against=("gmacs_total",))).axes[0])
    assert [container[0].get_ydata()[0] for container in found.values()] == [70, 40]
    assert [container[2] for container in found.values()] == [(), ()]


def test_every_data_set_has_its_panels_and_its_front(tmp_path: Path) -> None:
    cells = [make.cell(strategy=s, options={}, dataset=d) for d in ("motion", "ssv2") for s in ("frozen", "full")]
    run = plotted.opened(tmp_path, cells)
    for cell, top1 in zip(cells, (70.0, 60.0, 20.0, 30.0), strict=True):
        run.write(make.done(cell, top1=top1, trained_params=10 if cell.strategy == "frozen" else 20))
    shown = figure("pareto", Runs([run]), PlotRequest(against=("trained_params_m",))).axes
    assert [axes.get_title() for axes in shown] == ["motion", "ssv2"]
    fronts = [[line.get_ydata().tolist() for line in axes.lines if line.get_label() == "front"] for axes in shown]
    assert fronts == [[[70.0]], [[20.0, 30.0]]]


def test_more_variants_than_markers_have_those_of_their_strategies(tmp_path: Path) -> None:
    cells = [make.cell(options={"scale": scale / 100}) for scale in range(len(MARKERS) + 1)]
    run = plotted.opened(tmp_path, cells)
    for cell in cells:
        run.put(make.done(cell))
    few, many = (Runs([run]) for _ in range(2))
    few.results = few.results[:-1]
    for runs, count in ((few, len(MARKERS)), (many, 1)):
        shown = figure("pareto", runs, ONE)
        assert len(shown.legends[1].get_texts()) == count
        assert len({str(container[0].get_marker()) for container in shown.axes[0].containers}) == count


def test_sixteen_backbones_and_twenty_strategies_look_different() -> None:
    backbones, methods = [f"b{i}" for i in range(16)], [f"s{i}" for i in range(20)]
    looks = Looks(backbones, methods)
    assert len({looks(backbone, method) for backbone in backbones for method in methods}) == 16 * 20


# --- files ---


def test_files_are_of_their_kind_and_size(one: Figure) -> None:
    width, height = one.get_size_inches()
    assert width == pytest.approx(6.9)
    png = content(one, "png")
    assert png.startswith(b"\x89PNG\r\n") and Image.open(io.BytesIO(png)).size == (int(300 * width), int(300 * height))
    pdf = content(one, "pdf")
    assert pdf.startswith(b"%PDF-") and b"/FontFile2" in pdf  # a TrueType font, embedded
    box = re.search(rb"/MediaBox \[\s*0 0 ([\d.]+) ([\d.]+)\s*\]", pdf)
    assert box and [float(side) / 72 for side in box.groups()] == pytest.approx([width, height], abs=0.01)


def test_sizes() -> None:
    assert [Size.parsed(text).width for text in ("column", "page")] == [3.3, 6.9]
    assert Size.parsed("5x4.5") == Size(5.0, 4.5)


def test_an_svg_for_a_page_is_one_element_of_texts(tmp_path: Path) -> None:
    cells = [make.cell(head=NAME), make.cell(strategy="frozen", options={})]
    run = plotted.opened(tmp_path, cells)
    for cell in cells:
        run.write(make.done(cell))
    drawn = figure("pareto", Runs([run]), PlotRequest(size=Size(5, 4)))
    text = svg(drawn)
    root = ElementTree.fromstring(text)
    assert text.startswith("<svg") and (root.get("width"), root.get("height")) == ("360pt", "288pt")
    assert root.get("role") == "img" and root.get("aria-label") == drawn.get_label()
    texts = {element.text for element in root.iter("{http://www.w3.org/2000/svg}text")}
    assert {f"joint+{NAME}", "frozen", "vit:tiny@none", "top-1 %", COSTS[0].label} <= texts
    ids = [element.get("id") for element in root.iter() if element.get("id")]
    assert len(ids) == len(set(ids)) and not any(re.match(r"(figure|axes|text)_", name) for name in ids)
    used = set(re.findall(r'(?:url\(#|href="#)([\w-]+)', text))
    assert used == set(ids)
    assert "<style" not in text and "<metadata" not in text and "http://www.w3.org/1999/02" not in text


def test_a_user_s_own_settings_stay_and_do_not_matter(runs: Runs, one: Figure) -> None:
    before = content(one, "svg")
    with matplotlib.rc_context({"font.size": 30, "axes.grid": False, "text.usetex": False, "svg.fonttype": "path"}):
        found = content(figure("pareto", runs, ONE), "svg")
        assert matplotlib.rcParams["font.size"] == 30
    assert found == before


def test_what_a_run_lacks_is_told(tmp_path: Path) -> None:
    run = plotted.opened(tmp_path, [make.cell()])
    run.write(make.failed(make.cell()))
    for kind in KINDS:
        with pytest.raises(Lacking) as told:
            figure(kind, Runs([run]))
        assert len(told.value.problems) == 1
    with pytest.raises(ValueError, match=quoting("'bars'", "pareto")):
        figure("bars", Runs([run]))
