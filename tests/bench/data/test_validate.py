"""Checks before anything is trained, and the fingerprint of what lies there."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import pytest

from bench.data.dataset import DATASETS, VideoDataset
from bench.data.files import sizes
from bench.data.validate import Findings, examine, present
from bench.spec.source import DataSource, missing_paths
from tests.bench.command import Wording, quotes


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


def test_a_few_missing_videos_are_counted_and_five_named(tmp_path: Path, wording: Wording) -> None:
    dataset = mine(tmp_path, rows("t", 10) + rows("gone", 7), rows("v", 2) + "gone9.mp4 0\n")
    found = examine(dataset)
    training, test = found.notes
    assert quotes(training, "list", 7, 17, *(f"gone{i}.mp4" for i in range(5))) and "gone5" not in training
    assert quotes(test, "list", 1, 3, "gone9.mp4") and not found.problems
    wording(found.notes)
    assert examine(dataset, strict=True) == Findings(found.notes, ())
    assert [v.name for v in present(dataset.videos("train"))] == [f"t{i}.mp4" for i in range(10)]


def test_half_of_the_videos_missing_is_a_problem(tmp_path: Path, wording: Wording) -> None:
    found = examine(mine(tmp_path, rows("t", 3) + rows("gone", 2), rows("v", 2) + rows("gone", 2, 5)))
    (test,) = found.problems
    assert quotes(test, "list", 2, 4, "gone5.mp4", "gone6.mp4")
    found = examine(mine(tmp_path, rows("gone", 2), rows("v", 2)))
    (training,) = found.problems
    assert quotes(training, "list", 2, 2, "gone0.mp4", "gone1.mp4", f"{tmp_path}/gone0.mp4")
    wording([test, training])


def test_all_that_is_wrong_with_all_lists_is_told_at_once(tmp_path: Path) -> None:
    dataset = mine(tmp_path, "a.mp4 0\nb.mp4 1\na.mp4 1\n", "c.mp4 2\nd.mp4 -1\n")
    train, val = examine(dataset).problems
    assert quotes(train, "line 3", "'a.mp4 1'", "line 1")
    assert quotes(val, "'d.mp4 -1'", "'-1'", 0)
    (val,) = examine(mine(tmp_path, rows("t", 4), "c.mp4 2\n")).problems
    assert quotes(val, "'c.mp4 2'", 2, 0, 1)


def test_videos_in_training_and_test_are_a_problem_under_whatever_name(tmp_path: Path, wording: Wording) -> None:
    dataset = mine(tmp_path, rows("t", 4), "t1.mp4 1\nv1.mp4 0\n")
    (problem,) = examine(dataset).problems
    assert quotes(problem, "list", 1, "t1.mp4")
    wording([problem])
    dataset = mine(tmp_path, rows("t", 4), f"{tmp_path}/t2.mp4 0\n")
    assert len(examine(dataset).problems) == 1
    (tmp_path / "test.txt").write_text("t3.mp4 1\n")
    dataset = mine(tmp_path, rows("t", 4), rows("v", 2), test_list=tmp_path / "test.txt")
    (problem,) = examine(dataset).problems
    assert quotes(problem, "list", 1, "t3.mp4")
    assert examine(dataset, splits=("test",)) == Findings((), ())


def test_classes_without_a_training_video_are_counted_and_five_named(tmp_path: Path, wording: Wording) -> None:
    train = "".join(f"t{label}.mp4 {label}\n" for label in (0, 1, 2, 10))
    dataset = mine(tmp_path, train, "v1.mp4 1\nv4.mp4 4\nw4.mp4 4\nv5.mp4 5\n")
    found = examine(dataset)
    classes, test = found.notes
    assert quotes(classes, "list", 7, 11, 3, 4, 5, 6, 7) and not quotes(classes, 8)
    assert quotes(test, "list", 3, 4, 2, 4, 5) and not found.problems
    wording(found.notes)
    assert examine(dataset, strict=True) == Findings(examine(dataset).notes, ())
    # an evaluation looks into the training list too, where there is one
    assert examine(dataset, splits=("test",)).notes == examine(dataset).notes
    (tmp_path / "train.txt").unlink()
    names = tmp_path / "names.txt"
    names.write_text("".join(f"n{i}\n" for i in range(11)))
    source = DataSource(root=tmp_path, val_list=tmp_path / "val.txt", class_names=names)
    assert examine(DATASETS.get("list")(source), splits=("test",)) == Findings((), ())


def test_validation_and_test_are_told_apart(tmp_path: Path, wording: Wording) -> None:
    (tmp_path / "test.txt").write_text("v0.mp4 0\nv9.mp4 2\n")
    (tmp_path / "v9.mp4").touch()
    dataset = mine(tmp_path, "a.mp4 0\nb.mp4 3\n", "v0.mp4 1\nv1.mp4 3\n", test_list=tmp_path / "test.txt")
    notes = examine(dataset).notes
    classes, validation, test = notes
    assert quotes(classes, 2, 4, 1, 2)
    assert quotes(validation, 1, 2, "validation", 1, 1) and quotes(test, 1, 2, "test", 1, 2)
    wording(notes)


def test_a_class_whose_training_videos_are_all_missing_has_none(tmp_path: Path) -> None:
    dataset = mine(tmp_path, rows("t", 4) + "gone.mp4 2\n", rows("v", 2) + "w.mp4 2\n")
    missing, empty, strange = examine(dataset).notes
    assert "gone.mp4" in missing
    assert quotes(empty, 1, 3, "classes", 2) and quotes(strange, 1, 3, "test", 1, 2)
    # where most are missing that is what is told
    dataset = mine(tmp_path, "t0.mp4 0\ngone.mp4 1\n", rows("v", 2))
    assert len(examine(dataset).problems) == 1 and not examine(dataset).notes


@pytest.mark.parametrize(
    ("train", "val", "names", "asks"),
    [
        ("a.mp4 1\nb.mp4 2\n", "c.mp4 1\n", "", True),
        ("a.mp4 1\nb.mp4 4\n", "c.mp4 1\n", "", True),  # with gaps
        ("a.mp4 1\nb.mp4 2\n", "c.mp4 0\n", "", False),
        ("a.mp4 2\nb.mp4 3\n", "c.mp4 2\n", "", False),
        ("a.mp4 1\nb.mp4 2\n", "c.mp4 1\n", "walk\nrun\njump\n", False),  # the names say which is 0
        ("a.mp4,run\nb.mp4,jump\n", "c.mp4,run\n", "walk\nrun\njump\n", False),
    ],
)
def test_whether_labels_start_at_1_is_asked(tmp_path: Path, train: str, val: str, names: str, asks: bool) -> None:
    (tmp_path / "names.txt").write_text(names)
    dataset = mine(tmp_path, train, val, **({"class_names": tmp_path / "names.txt"} if names else {}))
    for name in "abc":
        (tmp_path / f"{name}.mp4").touch()
    found = examine(dataset)
    assert not found.problems
    assert ("--labels-from 1" in found.notes[0]) is asks
    assert ("walk" in found.notes[0]) is bool(names)


def test_labels_that_are_said_to_start_at_1_do(tmp_path: Path) -> None:
    train, val = "a.mp4 1\nb.mp4 2\nc.mp4 3\n", "d.mp4 3\n"
    dataset = mine(tmp_path, train, val, labels_from=1)
    assert examine(dataset) == Findings((), ())
    assert dataset.classes == ("1", "2", "3")  # as the lists call them
    assert [v.label for split in ("train", "val") for v in dataset.videos(split)] == [0, 1, 2, 2]
    problems = examine(mine(tmp_path, train, "d.mp4 4\ne.mp4 0\n", labels_from=1)).problems
    assert len(problems) == 1 and quotes(problems[0], "line 2", "'e.mp4 0'", 0)
    (problem,) = examine(mine(tmp_path, train, "d.mp4 4\n", labels_from=1)).problems
    assert quotes(problem, "'d.mp4 4'", 4, 1, 3)
    (tmp_path / "names.txt").write_text("walk\nrun\njump\n")
    named = mine(tmp_path, train, val, labels_from=1, class_names=tmp_path / "names.txt")
    assert (examine(named), [v.label for v in named.videos("val")]) == (Findings((), ()), [2])


def test_a_file_of_class_names_and_the_labels_are_held_against_each_other(tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_text("walk\nrun\n")
    (problem,) = examine(mine(tmp_path, rows("t", 4), "v.mp4 0\nw.mp4 2\n", class_names=names)).problems
    assert quotes(problem, "line 2", "'w.mp4 2'", 2, 0, 1)
    assert quotes(problem, names, 2) and "--labels-from" not in problem
    (train, val) = examine(mine(tmp_path, "a.mp4 1\nb.mp4 2\n", "c.mp4 2\n", class_names=names)).problems
    assert "--labels-from 1" in train and "--labels-from 1" in val
    names.write_text("walk\nrun\nhop\nskip\n")
    (note,) = examine(mine(tmp_path, rows("t", 4), rows("v", 2), class_names=names)).notes
    assert quotes(note, "list", 2, 4, "hop", "skip")
    # without it, the training list counts them
    (problem,) = examine(mine(tmp_path, rows("t", 4), "c.mp4 3\n")).problems
    assert quotes(problem, tmp_path / "train.txt", 2, "--class-names")


def test_a_published_data_set_may_lack_classes(tmp_path: Path) -> None:
    def k400(train: str, val: str) -> Findings:
        (tmp_path / "train_video_list.txt").write_text(train)
        (tmp_path / "val_video_list.txt").write_text(val)
        for name in "abcd":
            (tmp_path / f"{name}.mp4").touch()
        return examine(DATASETS.get("k400")(DataSource(root=tmp_path)))

    assert k400("a.mp4 1\nb.mp4 2\n", "c.mp4 1\n") == Findings((), ())
    (note,) = k400("a.mp4 1\nb.mp4 2\n", "c.mp4 1\nd.mp4 399\n").notes
    assert quotes(note, "k400", 1, 2, 1, 399)
    (problem,) = k400("a.mp4 1\nb.mp4 400\n", "c.mp4 1\n").problems
    assert quotes(problem, "'b.mp4 400'", 400, 0, 399, "--labels-from 1")
    for train in ("a.mp4 0\nb.mp4 400\n", "a.mp4 1\nb.mp4 401\n"):
        (problem,) = k400(train, "c.mp4 1\n").problems
        assert "--labels-from" not in problem


def test_clips_of_one_recording_in_training_and_test_are_noted(tmp_path: Path, wording: Wording) -> None:
    (tmp_path / "train_video_list.txt").write_text("abcdefghijk_000001_000011.mp4 1\nx_a.mp4 2\n")
    (tmp_path / "val_video_list.txt").write_text("run/abcdefghijk_000021_000031.mp4 1\nx_b.mp4 2\n")
    for name in ("abcdefghijk_000001_000011", "x_a", "run/abcdefghijk_000021_000031", "x_b"):
        (tmp_path / f"{name}.mp4").parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.mp4").touch()
    found = examine(DATASETS.get("k400")(DataSource(root=tmp_path)))
    (note,) = found.notes
    assert quotes(note, "k400", 1, "run/abcdefghijk_000021_000031.mp4") and not found.problems
    wording([note])


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


def test_places_that_are_not_there_are_told(tmp_path: Path, wording: Wording) -> None:
    (tmp_path / "videos").mkdir()
    (tmp_path / "train.txt").touch()
    assert missing_paths(data_root=tmp_path / "videos", train_list=tmp_path / "train.txt", val_list=None) == []
    root, train = missing_paths(data_root=tmp_path / "vidoes", train_list=tmp_path / "tran.txt")
    assert quotes(root, f"data_root is '{tmp_path}/vidoes'", f"'{tmp_path}/videos'")
    assert quotes(train, f"train_list is '{tmp_path}/tran.txt'", f"'{tmp_path}/train.txt'")
    (file,) = missing_paths(data_root=tmp_path / "train.txt")
    assert quotes(file, f"data_root is '{tmp_path}/train.txt'")
    wording([root, train, file])
