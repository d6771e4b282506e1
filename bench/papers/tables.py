"""Tables of AIM's paper (Yang et al., ICLR 2023, arXiv 2302.03024): a matrix each, and the figures as published.

A table's matrix is a configuration file of this folder, `table1.yaml`; its `matrices` are called as the methods of the
paper's rows are in aim_paper.csv. Rows of a method without one are published figures alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from math import prod
from pathlib import Path
from typing import Any

from backbones.families import resolve
from backbones.names import BackboneName
from backbones.registry import did_you_mean
from bench.data.dataset import DATASETS
from bench.errors import UserError
from bench.papers.figures import AIM_FIGURES, QUANTITIES, SOURCE, read_printed
from bench.spec import Matrix
from bench.spec.source import Views
from bench.yaml_files import read_mapping

PREFIX = "paper/"
PAPER = f"AIM ({SOURCE})"
# the models behind the paper's names of backbones and of their pretraining
BACKBONES = {
    ("ViT-B/16", "IN-21K"): "vit:vit_base_patch16_224.augreg_in21k",
    ("ViT-B/16", "CLIP"): "clip:ViT-B-16@openai",
    ("ViT-L/14", "CLIP"): "clip:ViT-L-14@openai",
    ("Swin-B", "IN-21K"): "swin:swin_base_patch4_window7_224.ms_in22k",
}


@dataclass(frozen=True)
class PublishedRow:
    """A row of a table as it is printed.

    Attributes:
        dataset: the harness's name of it.
        method, backbone, pretraining: as the paper calls them.
        frames: of a clip.
        views: of a test.
        figures: by the columns' names in aim_paper.csv, without those that the paper leaves out.
    """

    dataset: str
    method: str
    backbone: str
    pretraining: str
    frames: int
    views: Views
    figures: Mapping[str, float]

    @property
    def protocol(self) -> str:
        """Frames x clips x crops."""
        return f"{self.frames}x{self.views}"

    @property
    def model(self) -> BackboneName:
        """The backbone in full."""
        return resolve(BACKBONES[self.backbone, self.pretraining], "base")


@dataclass(frozen=True)
class PaperTable:
    """A table of the paper: its matrix and its rows.

    Attributes:
        name: as on the command line: paper/table1.
        file: its matrix.
    """

    name: str
    file: Path

    @property
    def title(self) -> str:
        """As the paper numbers it: Table 1."""
        return re.sub(r"(\d+)", r" \1", self.file.stem).capitalize()

    @property
    def summary(self) -> str:
        """Its subject, the first line of its file."""
        with self.file.open(encoding="utf-8") as stream:
            return stream.readline().removeprefix("# ").partition(": ")[2].strip()

    @property
    def rows(self) -> tuple[PublishedRow, ...]:
        """The printed rows, in the paper's order."""
        return published_rows().get(f"AIM {self.title}", ())

    @cached_property
    def matrix(self) -> Matrix:
        """The matrix of all rows that can be run. Raises ValueError where the package's file is damaged."""
        problems: list[str] = []
        fields = read_mapping(self.file, self.name, problems)
        if problems:
            raise ValueError("; ".join(problems))
        return Matrix(**fields)

    @property
    def methods(self) -> dict[str, Matrix]:
        """The matrix of each method of the rows that can be run."""
        whole = self.matrix
        return dict(zip(whole.matrices, whole.parts(), strict=True))

    @property
    def cells(self) -> int:
        """Number of its cells, with one seed each."""
        return sum(
            prod(map(len, (part.backbones, part.strategies, part.frames or (0,), part.train_fractions)))
            for part in self.methods.values()
        )


def tables() -> list[PaperTable]:
    """Return the tables that there are, figures last."""
    files = sorted(Path(__file__).parent.glob("*.yaml"), key=lambda file: (file.stem[:1] != "t", file.stem))
    return [PaperTable(f"{PREFIX}{file.stem}", file) for file in files]


def find_table(name: str, field: str) -> PaperTable:
    """Return the table of a name.

    Args:
        name: paper/table1.
        field: that it was given as, for the message.

    Raises:
        UserError: there is no such table.
    """
    known = {table.name: table for table in tables()}
    if name not in known:
        raise UserError([f"{field} is {name!r}: expected one of {', '.join(known)}{did_you_mean(name, known)}"])
    return known[name]


@cache
def published_rows() -> dict[str, tuple[PublishedRow, ...]]:
    """Return the rows of every table by its source in aim_paper.csv: AIM Table 1."""
    found: dict[str, list[PublishedRow]] = {}
    for _, line in read_printed(AIM_FIGURES.read_text(encoding="utf-8"))[1]:
        figures = {name: float(line[name]) for name in QUANTITIES if name in line}
        views = Views(int(line["temporal_views"]), 3 if int(line["spatial_views"]) == 3 else 1)
        dataset, method, backbone, pretraining = (line[name] for name in ("dataset", "method", "backbone", "pretrain"))
        row = PublishedRow(dataset, method, backbone, pretraining, int(line["frames"]), views, figures)
        found.setdefault(line["source"], []).append(row)
    return {source: tuple(rows) for source, rows in found.items()}


def replica(fields: Mapping[str, Any], datasets: Any) -> dict[str, Any]:
    """Return the fields of a table's matrix with each family's tiny model in place of the published ones.

    They are as they were where a data set of `datasets`, as a user wrote them, is not one of tiny models: the published
    models would take hours a cell on the embedded data set, which has no use for them.
    """
    names = datasets.split(",") if isinstance(datasets, str) else datasets
    if not isinstance(names, Sequence) or not all(_is_tiny(str(name).strip()) for name in names):
        return dict(fields)
    changed = {name: _tiny(value) if name == "backbones" else value for name, value in fields.items()}
    if isinstance(parts := changed.get("matrices"), Mapping):
        changed["matrices"] = {name: replica(part, datasets) for name, part in parts.items()}
    return changed


def _is_tiny(dataset: str) -> bool:
    return dataset in DATASETS and DATASETS.get(dataset).size == "tiny"


def _tiny(backbones: str | Sequence[str]) -> list[str]:
    """Return the bare families of backbones, which name their tiny models there."""
    listed = backbones.split(",") if isinstance(backbones, str) else backbones
    return list(dict.fromkeys(name.partition(":")[0].strip() for name in listed))
