"""Kinetics-400, -600 and -700 (Kay et al., arXiv 1705.06950; Carreira et al., arXiv 1808.01340, 1907.06987).

Official: CSV files with the header `label,youtube_id,time_start,time_end,split`; a class's label is its name's rank.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.data.annotations import Entry, read_text, unusable
from bench.data.catalog.annotated import AnnotatedDataset
from bench.data.dataset import DataError, Sampling, Split, Video, register_dataset

_ID = re.compile(r"(.{11})(_\d{6}_\d{6})?\.\w+")


class Kinetics(AnnotatedDataset):
    """Base of the three data sets."""

    sampling: Sampling = "dense"
    official_names = True

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        n = cls.count
        cls.homes = (f"k{n}", f"kinetics{n}", f"kinetics-{n}", f"Kinetics-{n}", f"kinetics_{n}", f"Kinetics{n}")
        cls.lists = (
            f"kinetics{n}_{{split}}_list_videos.txt",
            "{split}_video_list.txt",
            f"kinetics{n}_{{split}}_list_rawframes.txt",
        )
        stems = (f"kinetics{n}_", f"kinetics_{n}_", f"k{n}_", "kinetics_", "")
        cls.official_train = tuple(f"{stem}train.csv" for stem in stems)
        cls.official_val = tuple(f"{stem}{split}.csv" for stem in stems for split in ("val", "validate", "validation"))
        maps = (f"kinetics_label_map_k{n}", f"label_map_k{n}", f"kinetics{n}_label_map", "kinetics_label_map")
        cls.name_files = (*(f"{name}.txt" for name in maps), "label_map.txt")

    def is_official(self, file: Path) -> bool:
        try:
            with file.open(encoding="utf-8-sig") as stream:
                return "youtube_id" in stream.readline().split(",")
        except (OSError, UnicodeDecodeError):
            return False

    def official_classes(self, file: Path) -> tuple[str, ...]:
        return tuple(sorted({row["label"] for _, row in _rows(file)}))

    def read_official(self, file: Path, split: Split) -> list[Entry]:
        entries, wrong = [], []
        for where, row in _rows(file):
            text = ",".join(str(value) for value in row.values() if isinstance(value, str))
            try:
                begin, end = (f"{int(float(row[name])):06d}" for name in ("time_start", "time_end"))
            except (TypeError, ValueError):
                wrong.append((where, text, "time_start and time_end are not numbers of seconds"))
                continue
            clip, label = f"{row['youtube_id']}_{begin}_{end}", row["label"]
            folders = dict.fromkeys((f"{label}/", f"{label.replace(' ', '_')}/", ""))
            candidates = tuple(f"{folder}{stem}.*" for folder in folders for stem in (clip, row["youtube_id"]))
            entries.append(Entry(f"{clip}.mp4", label, where, text, candidates))
        if wrong:
            raise unusable(file, wrong)
        return entries

    def original(self, video: Video) -> str | None:
        found = _ID.fullmatch(video.name.rpartition("/")[2])
        return found[1] if found else None


def _rows(file: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """("line N", the row by column). Raises DataError where columns are missing."""
    reader = csv.DictReader(io.StringIO(read_text(file)))
    needed = ("label", "youtube_id", "time_start", "time_end")
    if lacking := [name for name in needed if name not in (reader.fieldnames or ())]:
        raise DataError(f"{file}: the columns {', '.join(lacking)} are missing: expected {', '.join(needed)}")
    for row in reader:
        if any(row[name] is None for name in needed):
            raise DataError(f"{file}: line {reader.line_num} has too few columns")
        yield f"line {reader.line_num}", {**row, "label": row["label"].strip()}


@register_dataset("k400")
class Kinetics400(Kinetics):
    name = "k400"
    summary = "Kinetics-400, 400 classes"
    count = 400


@register_dataset("k600")
class Kinetics600(Kinetics):
    name = "k600"
    summary = "Kinetics-600, 600 classes"
    count = 600


@register_dataset("k700")
class Kinetics700(Kinetics):
    name = "k700"
    summary = "Kinetics-700, 700 classes"
    count = 700
