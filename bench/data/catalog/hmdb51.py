"""HMDB-51 (Kuehne et al., ICCV 2011).

Official: a folder with a file `<class>_test_splitK.txt` for each class, lines `<name>.avi 0|1|2`: 1 is training, 2
test, 0 neither.
"""

from __future__ import annotations

from pathlib import Path

from bench.data.annotations import Entry, read_text, unusable
from bench.data.catalog.annotated import AnnotatedDataset
from bench.data.dataset import DataError, Sampling, Split, register_dataset


@register_dataset("hmdb51")
class HMDB51(AnnotatedDataset):
    name = "hmdb51"
    summary = "HMDB-51, 51 classes, split 1, 2 or 3 (--fold)"
    count = 51
    official_names = True
    sampling: Sampling = "dense"
    folds = (1, 2, 3)
    homes = ("hmdb51", "HMDB51", "hmdb-51", "HMDB-51")
    lists = ("hmdb51_{split}_split_{fold}_videos.txt", "hmdb51_{split}_split_{fold}_rawframes.txt")
    official_train = official_val = ("testTrainMulti_7030_splits", "test_train_splits", "splits")
    name_files = ("hmdb51_label_map.txt", "label_map.txt")
    video_folders = ("hmdb51_org", "hmdb51_videos")

    def is_official(self, file: Path) -> bool:
        return file.is_dir()

    def _lists(self, folder: Path) -> dict[str, Path]:
        """class -> its file, in the order of the names. Raises DataError where there is none."""
        ending = f"_test_split{self.fold}.txt"
        found = {file.name.removesuffix(ending): file for file in sorted(folder.rglob(f"*{ending}"))}
        if not found:
            raise DataError(f"{folder}: there is no list of split {self.fold}: expected files '<class>{ending}'")
        return found

    def official_classes(self, file: Path) -> tuple[str, ...]:
        return tuple(self._lists(file))

    def read_official(self, file: Path, split: Split) -> list[Entry]:
        wanted = "1" if split == "train" else "2"
        entries, wrong = [], []
        for label, listed in self._lists(file).items():
            for number, line in enumerate(read_text(listed).splitlines(), start=1):
                parts = line.rsplit(maxsplit=1)
                where = f"{listed.name}, line {number}"
                if parts and (len(parts) != 2 or parts[1] not in ("0", "1", "2")):
                    wrong.append((where, line, "expected '<name>.avi 0|1|2'"))
                elif parts and parts[1] == wanted:
                    name = f"{label}/{parts[0]}"
                    entries.append(Entry(name, label, where, line, (f"{name.removesuffix('.avi')}.*",)))
        if wrong:
            raise unusable(file, wrong)
        return entries
