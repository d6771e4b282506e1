"""A run as a page shows it, its names chosen to break one; and what a page has in it, read back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from bench.report.page.data import page_data, to_script
from bench.report.page.render import render_page
from bench.report.runs import Runs
from bench.report.table import make_table
from bench.run.result import SkippedVideo
from bench.run.store import ADAPTER, LOG, PREDICTIONS, Run
from bench.spec import Cell
from tests.bench import make

HOSTILE = (
    "<script>alert(1)</script>",
    "</script><img src=x onerror=alert(2)>",
    "\"quotes\" & 'more' <b>bold</b>",
    "🎬 \u2028 {{ 7 * 7 }} ${alert(3)}",
    "תנועה ימינה",
    "long" * 75,
)
VIDEOS = 60
NAMES = tuple(f"{HOSTILE[index % 6][:30]}/{index:03}.mp4" for index in range(VIDEOS))
LABELS = np.arange(VIDEOS) % 6
SKIPPED = SkippedVideo(name="<i>gone</i>.mp4", split="test", reason="the file is empty (0 bytes)", times=1)


def cells() -> list[Cell]:
    """Two strategies in two seeds, another backbone, and one that fails; the second one is the best."""
    kinds = [("vit:tiny", "frozen", 0), ("vit:tiny", "frozen", 1), ("vit:tiny", "joint", 0), ("vit:tiny", "joint", 1)]
    kinds += [("clip:tiny", "frozen", 0), ("clip:tiny", "joint", 0)]
    return [make.cell(backbone=backbone, strategy=name, options={}, seed=seed) for backbone, name, seed in kinds]


def guessed(index: int) -> np.ndarray:
    """The classes that a cell takes its videos for, (V): more of them right from cell to cell."""
    generator = np.random.default_rng(index)
    right = generator.random(VIDEOS) < 0.3 + 0.12 * index
    return np.where(right, LABELS, (LABELS + generator.integers(1, 6, VIDEOS)) % 6)


def seen(index: int) -> np.ndarray:
    """Indices of the videos that a cell predicted: the second cell lacks two, the third has them backwards."""
    every = np.arange(VIDEOS)
    return {1: every[2:], 2: every[::-1]}.get(index, every)


def write_run(folder: Path, hostile: Sequence[str] = HOSTILE) -> Run:
    """The run of these cells, the last of which failed."""
    run, made = Run(folder), cells()
    run.open(make.matrix(), made, "bench run --out '<b>'", {})
    for index, cell in enumerate(made[:-1]):
        videos = seen(index)
        guesses = guessed(index)[videos]
        top1 = 100 * float((guesses == LABELS[videos]).mean())
        footnotes = ("<u>a footnote</u> & more",) if index == 1 else ()
        result = make.done(cell, top1=top1, footnotes=footnotes, train_clips_per_s=100.0 + 50 * index)
        run.put(result.model_copy(update={"skipped": (SKIPPED,) if index == 1 else ()}))
        place = run.cell_folder(cell)
        np.savez(
            place / PREDICTIONS,
            names=[NAMES[video] for video in videos],
            labels=LABELS[videos],
            probabilities=np.eye(6, dtype=np.float32)[guesses],
        )
        save_file({"x": np.zeros(1)}, place / ADAPTER, metadata={"classes": json.dumps(hostile)})
        write_log(place / LOG, index)
    run.put(make.failed(made[-1], error="ValueError: <b>no luck</b>"))
    run.write_csv()
    return run


def write_bare_run(folder: Path) -> Run:
    """A run of a model that was measured alone and of a cell that failed: without accuracies, videos and logs."""
    run = Run(folder)
    made = [make.cell(dataset="", stages=("measure",)), make.cell(strategy="full", options={})]
    run.open(make.matrix(), made, "bench profile", {})
    run.put(make.profiled(made[0]))
    run.put(make.failed(made[1]))
    return run


def write_log(file: Path, index: int) -> None:
    """250 intervals of 10 epochs, one of which diverged, and a last line that is torn."""
    lines = [{"epoch": step / 25, "loss": 2 / step + index, "train_top1": step / 3} for step in range(1, 251)]
    lines[100]["loss"] = float("nan")
    lines.insert(200, {"epoch": 8.0, "val_top1": 50.0 + index})
    file.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"epoch": 11, "lo')


def page_of(run: Run) -> str:
    runs = Runs([run])
    return render_page(runs, make_table(runs.results, runs.missing))


def data_of(run: Run) -> dict[str, Any]:
    """Return what the page's script gets, without the time that plots take."""
    runs = Runs([run])
    return dict(json.loads(to_script(page_data(runs, make_table(runs.results, runs.missing)))))


class Page(HTMLParser):
    """A page taken apart.

    Attributes:
        tags: how often each element begins.
        attributes: those of all elements: element, name, value.
        scripts, styles: their texts; the script of the data is the first.
        text: all other text.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: dict[str, int] = {}
        self.attributes: list[tuple[str, str, str]] = []
        self.scripts: list[str] = []
        self.styles: list[str] = []
        self.text = ""
        self._within = ""
        self.feed(text)
        self.close()

    @property
    def data(self) -> dict[str, Any]:
        return dict(json.loads(self.scripts[0]))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] = self.tags.get(tag, 0) + 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        self._within = tag
        if tag in ("script", "style"):
            (self.scripts if tag == "script" else self.styles).append("")

    def handle_endtag(self, tag: str) -> None:
        self._within = ""

    def handle_data(self, data: str) -> None:
        if self._within in ("script", "style"):
            (self.scripts if self._within == "script" else self.styles)[-1] += data
        else:
            self.text += data
