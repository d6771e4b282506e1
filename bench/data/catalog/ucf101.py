"""UCF-101 (Soomro et al., arXiv 1212.0402).

Official: `classInd.txt`, `trainlist0K.txt` and `testlist0K.txt`; files are `<Class>/v_<Class>_gXX_cYY.avi`.
"""

from __future__ import annotations

from pathlib import Path

from bench.data.annotations import Entry, read_text, unusable
from bench.data.catalog.annotated import AnnotatedDataset
from bench.data.dataset import Sampling, Split, register_dataset


@register_dataset("ucf101")
class UCF101(AnnotatedDataset):
    name = "ucf101"
    summary = "UCF-101, 101 classes, split 1, 2 or 3 (--fold)"
    count = 101
    sampling: Sampling = "dense"
    folds = (1, 2, 3)
    homes = ("ucf101", "UCF101", "UCF-101", "ucf-101")
    lists = ("ucf101_{split}_split_{fold}_videos.txt", "ucf101_{split}_split_{fold}_rawframes.txt")
    official_train = ("ucfTrainTestlist/trainlist0{fold}.txt", "trainlist0{fold}.txt")
    official_val = ("ucfTrainTestlist/testlist0{fold}.txt", "testlist0{fold}.txt")
    name_files = ("ucfTrainTestlist/classInd.txt", "classInd.txt", "label_map.txt")
    video_folders = ("UCF-101", "UCF101")

    def is_official(self, file: Path) -> bool:
        """Test by the file's name: the test's lines have no label, and the training's count from 1."""
        return file.name.startswith(("trainlist", "testlist"))

    def read_official(self, file: Path, split: Split) -> list[Entry]:
        entries, wrong = [], []
        for number, line in enumerate(read_text(file).splitlines(), start=1):
            if not line.strip():
                continue
            name = line.split()[0]
            label, slash, _ = name.partition("/")
            if slash:
                entries.append(Entry(name, label, f"line {number}", line, (f"{name.removesuffix('.avi')}.*",)))
            else:
                wrong.append((f"line {number}", line, "expected 'Class/v_Class_gXX_cYY.avi'"))
        if wrong:
            raise unusable(file, wrong)
        return entries
