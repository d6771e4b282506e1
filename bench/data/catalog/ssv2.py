"""Something-Something V2 (Goyal et al., ICCV 2017, arXiv 1706.04261).

Official: JSON items `{id, template}` and a JSON of the templates' numbers; files are `<id>.webm`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from backbones.names import BackboneName
from bench.data.catalog.annotated import AnnotatedDataset
from bench.data.catalog.published import UNFLIPPED, is_large
from bench.data.dataset import Sampling, Split, register_dataset
from bench.data.entries import Entry
from bench.data.items import read_items


@register_dataset("ssv2")
class SSv2(AnnotatedDataset):
    """AIM has two temporal adapters a block here and adds the joint adapter whole, but not in a Swin."""

    name = "ssv2"
    summary = "Something-Something V2, 174 classes"
    count = 174
    sampling: Sampling = "uniform"
    flip = False  # "from left to right" is a label
    clips = 1
    crops: Literal[1, 3] = 3
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

    def frames_for(self, backbone: BackboneName) -> int:
        return 32 if backbone.family == "swin" else self.frames

    def options_for(self, backbone: BackboneName) -> Mapping[str, Any]:
        return {} if backbone.family == "swin" else {"temporal_adapters": 2, "scale": 1.0}

    def recipe(self, backbone: BackboneName, strategy: str) -> Mapping[str, Any]:
        if backbone.family == "swin":
            return {**UNFLIPPED, "lr": 3e-5, "epochs": 60, "drop_path": 0.4}
        return {**UNFLIPPED, "lr": 3e-5 if is_large(backbone) else 3e-4, "epochs": 50}


_PLAIN = str.maketrans("", "", "[]")
