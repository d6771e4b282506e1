"""Diving-48, version 2 (Li et al., ECCV 2018).

Official: JSON items `{vid_name, label, start_frame, end_frame}`; files are `<vid_name>.mp4`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.data.annotations import Entry, read_items
from bench.data.catalog.annotated import AnnotatedDataset
from bench.data.dataset import Sampling, Split, register_dataset


@register_dataset("diving48")
class Diving48(AnnotatedDataset):
    name = "diving48"
    summary = "Diving-48, version 2, 48 classes"
    count = 48
    sampling: Sampling = "uniform"
    homes = ("diving48", "Diving48", "diving-48", "Diving-48")
    lists = ("diving48_{split}_list_videos.txt", "{split}_video_list.txt", "diving48_{split}_list_rawframes.txt")
    official_train = ("Diving48_V2_train.json",)
    official_val = ("Diving48_V2_test.json",)
    name_files = ("Diving48_vocab.json", "diving48_label_map.txt", "label_map.txt")
    video_folders = ("rgb",)

    def is_official(self, file: Path) -> bool:
        return file.suffix.lower() == ".json"

    def read_official(self, file: Path, split: Split) -> list[Entry]:
        return [
            Entry(f"{item['vid_name']}.mp4", _label(item["label"]), where, text, (f"{item['vid_name']}.*",))
            for where, text, item in read_items(file, ("vid_name", "label"))
        ]


def _label(value: Any) -> int | str:
    return value if isinstance(value, int) else str(value)
