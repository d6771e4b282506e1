"""A user's own videos, one folder a class."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from bench.data.catalog.folder import Folder
from bench.data.dataset import DataError
from bench.spec.source import DataSource
from tests.bench.command import Wording, quoting


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def opened(root: Path) -> Folder:
    return Folder(DataSource(root=root))


def test_folders_of_splits(tmp_path: Path) -> None:
    touch(
        tmp_path,
        *("train/walk/b.mp4", "train/walk/a.AVI", "train/run/c d.webm"),
        *("val/run/e.mp4", "test/walk/f.mp4"),
        *("train/walk/.hidden.mp4", "train/walk/notes.txt", "train/.cache/x.mp4", "train/readme.mp4"),
    )
    touch(tmp_path, "frames/img_00001.jpg", "nothing/readme.txt")
    os.symlink(tmp_path / "frames", tmp_path / "train/run/linked")
    os.symlink(tmp_path / "nothing", tmp_path / "train/run/no-frames")
    dataset = opened(tmp_path)
    assert dataset.classes == ("run", "walk")
    assert [(v.name, v.label) for v in dataset.videos("train")] == [
        ("train/run/c d.webm", 0),
        ("train/run/linked", 0),
        ("train/walk/a.AVI", 1),
        ("train/walk/b.mp4", 1),
    ]
    assert [(v.name, v.label) for v in dataset.videos("val")] == [("val/run/e.mp4", 0)]
    assert [(v.path, v.label) for v in dataset.videos("test")] == [(tmp_path / "test/walk/f.mp4", 1)]
    assert dataset.notes() == ()


def test_a_test_that_is_not_there_is_the_validation(tmp_path: Path) -> None:
    dataset = opened(touch(tmp_path, "train/a/1.mp4", "train/b/2.mp4", "validation/a/3.mp4"))
    assert dataset.videos("test") == dataset.videos("val") != ()
    assert dataset.notes() == ("folder test = validation",)


def test_our_own_split_takes_a_fifth_of_each_class_whatever_the_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, *(f"a/{i}.mp4" for i in range(20)), *(f"b/{i}.mp4" for i in range(7)), "c/0.mp4", "c/1.mp4")
    first = opened(tmp_path)
    train, val = first.videos("train"), first.videos("val")
    assert Counter(v.label for v in val) == {0: 4, 1: 1, 2: 1}
    assert Counter(v.label for v in train) == {0: 16, 1: 6, 2: 1}
    assert {v.name for v in train}.isdisjoint(v.name for v in val)
    assert first.videos("test") == val
    by_name = sorted(v.name for v in (*train, *val) if v.label == 0)
    assert sorted(v.name for v in val if v.label == 0) not in (by_name[:4], by_name[-4:])
    scandir = os.scandir

    class Backwards:
        def __init__(self, path: Path) -> None:
            self.entries = sorted(scandir(path), key=lambda entry: entry.name, reverse=True)

        def __enter__(self) -> list[os.DirEntry[str]]:
            return self.entries

        def __exit__(self, *_: object) -> None:
            pass

        def __iter__(self):
            return iter(self.entries)

    monkeypatch.setattr(os, "scandir", Backwards)
    other = opened(tmp_path)
    assert (other.videos("train"), other.videos("val")) == (train, val)
    # the same elsewhere
    monkeypatch.undo()
    moved = tmp_path.rename(tmp_path.with_name("moved"))
    assert [v.name for v in opened(moved).videos("val")] == [v.name for v in val]


@pytest.mark.parametrize(
    ("names", "quoted"),
    [
        (("train/a/1.mp4", "train/b/1.mp4"), ("train", "val", "val/<class>")),
        (("train/a/1.mp4", "train/b/1.mp4", "val/c/1.mp4"), ("train", "c")),
        (("train/a/1.mp4", "train/b/x.txt", "val/a/1.mp4"), ("b",)),
        (("train/a/1.mp4", "train/b/1.mp4", "val/a/x.txt"), ("val",)),
        (("a/1.mp4", "a/2.mp4"), (1,)),
        (("a/1.mp4", "a/2.mp4", "b/1.mp4"), ("b", 1)),
    ],
)
def test_what_cannot_be_used_is_told(
    tmp_path: Path, wording: Wording, names: tuple[str, ...], quoted: tuple[object, ...]
) -> None:
    with pytest.raises(DataError, match=quoting("folder", *quoted)) as caught:
        opened(touch(tmp_path, *names)).prepare()
    wording([caught.value])
