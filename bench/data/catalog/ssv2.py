"""Something-Something V2 (Goyal et al., ICCV 2017, arXiv 1706.04261).

Official: JSON items `{id, template}` and a JSON of the templates' numbers; files are `<id>.webm`.
"""

from __future__ import annotations

from pathlib import Path

from bench.data.annotations import Entry, read_items
from bench.data.catalog.annotated import AnnotatedDataset
from bench.data.dataset import Sampling, Split, register_dataset


@register_dataset("ssv2")
class SSv2(AnnotatedDataset):
    name = "ssv2"
    summary = "Something-Something V2, 174 classes"
    count = 174
    sampling: Sampling = "uniform"
    flip = False  # "from left to right" is a label
    homes = ("ssv2", "sthv2", "something-something-v2", "something_something_v2", "SSv2", "sth-sth-v2")
    lists = ("sthv2_{split}_list_videos.txt", "{split}_video_list.txt", "sthv2_{split}_list_rawframes.txt")
    official_train = ("something-something-v2-train.json", "train.json")
    official_val = ("something-something-v2-validation.json", "validation.json")
    name_files = ("something-something-v2-labels.json", "labels.json", "sthv2_label_map.txt", "label_map.txt")
    video_folders = ("20bn-something-something-v2", "something-something-v2")

    def is_official(self, file: Path) -> bool:
        return file.suffix.lower() == ".json"

    def read_official(self, file: Path, split: Split) -> list[Entry]:
        return [
            Entry(f"{item['id']}.webm", str(item["template"]).translate(_PLAIN), where, text, (f"{item['id']}.*",))
            for where, text, item in read_items(file, ("id", "template"))
        ]


_PLAIN = str.maketrans("", "", "[]")
