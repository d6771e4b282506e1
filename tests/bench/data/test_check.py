"""What is looked at before anything is trained, and the fingerprint of what lies there."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest

from bench.data.base import DATASETS, VideoDataset
from bench.data.check import Findings, examine, present
from bench.data.listing import sizes
from bench.data.source import DataSource, missing_places


def mine(root: Path, train: str, val: str, **given: Any) -> VideoDataset:
    """The data set `list` with these two lists, below a root whose files exist that are not called `gone`."""
    (root / "train.txt").write_text(train)
    (root / "val.txt").write_text(val)
    for line in (train + val).splitlines():
        name = line.rpartition(" ")[0]
        if name and not name.startswith("gone"):
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).touch()
    return DATASETS.get("list")(
        DataSource(root=root, train_list=root / "train.txt", val_list=root / "val.txt", **given)
    )


def rows(prefix: str, count: int, first: int = 0) -> str:
    return "".join(f"{prefix}{i}.mp4 {i % 2}\n" for i in range(first, first + count))


def test_a_whole_data_set_has_nothing_to_tell(tmp_path: Path) -> None:
    calls: list[tuple[int, int]] = []
    dataset = mine(tmp_path, rows("t", 4), rows("v", 2))
    assert examine(dataset, progress=lambda done, total: calls.append((done, total))) == Findings((), ())
    assert calls


def test_a_few_missing_videos_are_counted_and_five_named(tmp_path: Path) -> None:
    dataset = mine(tmp_path, rows("t", 10) + rows("gone", 7), rows("v", 2) + "gone9.mp4 0\n")
    found = examine(dataset)
    assert found == Findings(
        (),
        (
            "list: 7 of 17 training videos are missing (gone0.mp4, gone1.mp4, gone2.mp4, gone3.mp4, gone4.mp4, ...)",
            "list: 1 of 3 test videos is missing (gone9.mp4)",
        ),
    )
    assert examine(dataset, strict=True) == Findings(found.notes, ())
    assert [v.name for v in present(dataset.videos("train"))] == [f"t{i}.mp4" for i in range(10)]


def test_half_of_the_videos_missing_is_a_problem(tmp_path: Path) -> None:
    found = examine(mine(tmp_path, rows("t", 3) + rows("gone", 2), rows("v", 2) + rows("gone", 2, 5)))
    assert found.problems == ("list: 2 of 4 test videos are missing (gone5.mp4, gone6.mp4)",)
    found = examine(mine(tmp_path, rows("gone", 2), rows("v", 2)))
    assert found.problems == (
        "list: 2 of 2 training videos are missing (gone0.mp4, gone1.mp4); "
        f"the first was looked for at {tmp_path}/gone0.mp4",
    )


def test_all_that_is_wrong_with_all_lists_is_told_at_once(tmp_path: Path) -> None:
    dataset = mine(tmp_path, "a.mp4 0\nb.mp4 1\na.mp4 1\n", "c.mp4 2\nd.mp4 -1\n")
    train, val = examine(dataset).problems
    assert "line 3: 'a.mp4 1': the path is already on line 1" in train
    assert "'-1' is not a whole number" in val
    (val,) = examine(mine(tmp_path, rows("t", 4), "c.mp4 2\n")).problems
    assert "the label 2 is out of range: expected 0 to 1" in val


def test_videos_in_training_and_test_are_a_problem_under_whatever_name(tmp_path: Path) -> None:
    dataset = mine(tmp_path, rows("t", 4), "t1.mp4 1\nv1.mp4 0\n")
    assert examine(dataset).problems == (
        "list: 1 test video is in the training list too (t1.mp4): expected other ones",
    )
    dataset = mine(tmp_path, rows("t", 4), f"{tmp_path}/t2.mp4 0\n")
    assert len(examine(dataset).problems) == 1
    (tmp_path / "test.txt").write_text("t3.mp4 1\n")
    dataset = mine(tmp_path, rows("t", 4), rows("v", 2), test_list=tmp_path / "test.txt")
    assert examine(dataset).problems == (
        "list: 1 test video is in the training list too (t3.mp4): expected other ones",
    )
    assert examine(dataset, splits=("test",)) == Findings((), ())


def test_clips_of_one_recording_in_training_and_test_are_noted(tmp_path: Path) -> None:
    (tmp_path / "train_video_list.txt").write_text("abcdefghijk_000001_000011.mp4 1\nx_a.mp4 2\n")
    (tmp_path / "val_video_list.txt").write_text("run/abcdefghijk_000021_000031.mp4 1\nx_b.mp4 2\n")
    for name in ("abcdefghijk_000001_000011", "x_a", "run/abcdefghijk_000021_000031", "x_b"):
        (tmp_path / f"{name}.mp4").parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.mp4").touch()
    found = examine(DATASETS.get("k400")(DataSource(root=tmp_path)))
    assert found == Findings(
        (),
        ("k400: 1 test video is cut from recordings of training videos (run/abcdefghijk_000021_000031.mp4)",),
    )


def test_the_fingerprint_is_of_names_labels_and_sizes(tmp_path: Path) -> None:
    dataset = mine(tmp_path, "a.mp4 0\nb.mp4 1\ngone.mp4 1\n", "v.mp4 1\n")
    (tmp_path / "a.mp4").write_bytes(b"12345")
    expected = hashlib.sha256()
    expected.update(b"train\0a.mp4\0" + b"0\0005\ntrain\0b.mp4\0" + b"1\0000\ntrain\0gone.mp4\0" + b"1\0missing\n")
    for split in (b"val", b"test"):
        expected.update(split + b"\0v.mp4\0" + b"1\0000\n")
    assert dataset.fingerprint() == expected.hexdigest()


def test_sizes_come_in_the_order_asked_for(tmp_path: Path) -> None:
    paths = [tmp_path / f"{i}" for i in range(600)]
    for i, path in enumerate(paths):
        if i % 3:
            path.write_bytes(b"x" * i)
    os.mkdir(paths[0])
    found = sizes(paths)
    assert found[0] == "folder"
    assert found[1:] == [str(i) if i % 3 else "missing" for i in range(1, 600)]


def test_a_large_list_asks_the_file_system_little(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of videos is read once, and no video is asked for by itself."""
    names = [f"class {i % 3}/{i}.mp4" for i in range(3000)]
    dataset = mine(tmp_path, "".join(f"{name} {i % 2}\n" for i, name in enumerate(names)), rows("v", 2))
    listed: list[str] = []
    asked: list[str] = []
    listdir, stat = os.listdir, os.stat

    def list_(folder: str) -> list[str]:
        listed.append(str(folder))
        return listdir(folder)

    def ask(path: object, **how: object) -> os.stat_result:
        asked.append(str(path))
        return stat(path, **how)  # type: ignore[call-overload]

    with monkeypatch.context() as patch:
        patch.setattr(os, "listdir", list_)
        patch.setattr(os, "stat", ask)
        videos = dataset.videos("train")
    assert len(videos) == 3000
    assert sorted(listed) == [f"{tmp_path}/class {i}" for i in range(3)]
    assert not [path for path in asked if path.endswith(".mp4")]


def test_places_that_are_not_there_are_told(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    (tmp_path / "train.txt").touch()
    assert missing_places(data_root=tmp_path / "videos", train_list=tmp_path / "train.txt", val_list=None) == []
    assert missing_places(data_root=tmp_path / "vidoes", train_list=tmp_path / "tran.txt") == [
        f"data_root is '{tmp_path}/vidoes': there is no such folder (did you mean '{tmp_path}/videos'?)",
        f"train_list is '{tmp_path}/tran.txt': there is no such file (did you mean '{tmp_path}/train.txt'?)",
    ]
    assert missing_places(data_root=tmp_path / "train.txt") == [f"data_root is '{tmp_path}/train.txt': it is no folder"]
