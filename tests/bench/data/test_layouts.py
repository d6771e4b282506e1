"""Each data set as it lies on a researcher's disk: official annotation files and mmaction2's lists, found by name.

The files of the videos are empty: nothing is decoded here.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench.data.catalog.annotated import AnnotatedDataset
from bench.data.dataset import DATASETS, DataError, Split, VideoDataset
from bench.data.validate import source_problems
from bench.spec.source import DataSource
from tests.bench.command import Wording, field_of, quotes, quoting


def tree(root: Path, *names: str, **texts: str) -> Path:
    """Empty files, and files with a text: `annotations__train_csv` is annotations/train.csv."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    for name, text in texts.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root


def put(root: Path, name: str, content: Any) -> None:
    text = content if isinstance(content, str) else json.dumps(content)
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text, encoding="utf-8")


def opened(name: str, root: Path | None = None, **given: Any) -> VideoDataset:
    return DATASETS.get(name)(DataSource.of(root=root, **given))


def listed(dataset: VideoDataset, split: Split, root: Path) -> list[tuple[str, int, str]]:
    """(path below the root, label, name) of each video; `-` before a path that does not exist."""
    return [
        (("" if v.path.exists() else "-") + v.path.relative_to(root).as_posix(), v.label, v.name)
        for v in dataset.videos(split)
    ]


# ---- Kinetics

HEADER = "label,youtube_id,time_start,time_end,split\n"


def kinetics_csv(count: int, *first: str) -> str:
    """A CSV of `count` classes `class 000`.. in reverse order, with the rows `first` before them."""
    rows = [f"class {i:03d},{i:011d},5,15,train" for i in reversed(range(count))]
    return HEADER + "\n".join((*first, *rows)) + "\n"


@pytest.mark.parametrize("count", [400, 600, 700])
def test_kinetics_official(tmp_path: Path, count: int) -> None:
    root = tmp_path.resolve()
    put(root, "annotations/train.csv", kinetics_csv(count))
    put(root, "label_map.txt", "of another list\n")  # what the official list tells goes before it
    put(root, f"annotations/kinetics{count}_val.csv", HEADER + "class 007,abcdefghijk,10.0,20.0,validate\n")
    tree(
        root,
        "train/class 002/00000000002_000005_000015.mkv",  # another container than usual
        "videos_train/class_001/00000000001_000005_000015.mp4",  # mmaction2's spelling of a class
        "00000000003_000005_000015.mp4",
        "val/abcdefghijk_000010_000020.mp4",
    )
    dataset = opened(f"k{count}", root)
    assert dataset.classes[:2] == ("class 000", "class 001") and len(dataset.classes) == count
    found = listed(dataset, "train", root)
    assert len(found) == count
    assert found[-4:] == [
        ("00000000003_000005_000015.mp4", 3, "00000000003_000005_000015.mp4"),
        ("train/class 002/00000000002_000005_000015.mkv", 2, "00000000002_000005_000015.mp4"),
        ("videos_train/class_001/00000000001_000005_000015.mp4", 1, "00000000001_000005_000015.mp4"),
        ("-00000000000_000005_000015.mp4", 0, "00000000000_000005_000015.mp4"),
    ]
    assert listed(dataset, "val", root) == [
        ("val/abcdefghijk_000010_000020.mp4", 7, "abcdefghijk_000010_000020.mp4"),
    ]
    assert dataset.videos("test") is dataset.videos("val")
    assert dataset.notes() == (
        f"k{count} train list = {root}/annotations/train.csv",
        f"k{count} val list = {root}/annotations/kinetics{count}_val.csv",
        f"k{count} test = its val list",
    )


def test_kinetics_as_mmaction2_has_it(tmp_path: Path) -> None:
    root = tmp_path.resolve()
    put(root, "kinetics400_train_list_videos.txt", "playing harp/x y.mp4 227\nabseiling/b.mp4 0\n")
    put(root, "kinetics400_val_list_videos.txt", "abseiling/c.mp4 0\n")
    put(root, "kinetics_label_map_k400.txt", "".join(f"name {i}\n" for i in range(400)))
    put(root, "train.csv", kinetics_csv(400))  # an official list beside it is not used
    tree(root, "videos_train/playing harp/x y.mp4", "videos_train/abseiling/b.mp4", "videos_val/abseiling/c.mp4")
    dataset = opened("k400", root)
    assert listed(dataset, "train", root) == [
        ("videos_train/playing harp/x y.mp4", 227, "playing harp/x y.mp4"),
        ("videos_train/abseiling/b.mp4", 0, "abseiling/b.mp4"),
    ]
    assert listed(dataset, "test", root) == [("videos_val/abseiling/c.mp4", 0, "abseiling/c.mp4")]
    assert dataset.classes[399] == "name 399"
    assert dataset.notes()[-1] == f"k400 class names = {root}/kinetics_label_map_k400.txt"


def test_aims_own_lists_below_a_root_of_several_data_sets(tmp_path: Path) -> None:
    root = tmp_path.resolve()
    put(root, "kinetics400/train_video_list.txt", "a.mp4 1\n")
    put(root, "kinetics400/val_video_list.txt", "b.mp4 2\n")
    tree(root, "kinetics400/train/a.mp4", "kinetics400/val/b.mp4")
    dataset = opened("k400", root)
    assert listed(dataset, "train", root) == [("kinetics400/train/a.mp4", 1, "a.mp4")]
    assert listed(dataset, "val", root) == [("kinetics400/val/b.mp4", 2, "b.mp4")]
    assert dataset.classes[:3] == ("0", "1", "2")


def test_a_wrong_number_of_official_classes_is_told(tmp_path: Path) -> None:
    put(tmp_path, "train.csv", kinetics_csv(399))
    put(tmp_path, "val.csv", kinetics_csv(3))
    with pytest.raises(DataError, match=quoting("train.csv", 399, "k400", 400)):
        _ = opened("k400", tmp_path).classes


def test_damaged_official_files_are_told_by_line(tmp_path: Path) -> None:
    put(tmp_path, "train.csv", kinetics_csv(400, "class 001,abcdefghijk,ten,20,train"))
    put(tmp_path, "val.csv", HEADER + "class 001,abcdefghijk,1,2,x\nno such class,abcdefghijl,1,2,x\n")
    dataset = opened("k400", tmp_path)
    with pytest.raises(DataError, match=r"line 2: 'class 001,abc.*time_start.*time_end"):
        dataset.videos("train")
    with pytest.raises(DataError, match=quoting("line 3", "'no such class'", 400)):
        dataset.videos("val")


# ---- SSv2


def ssv2_labels() -> dict[str, str]:
    return {f"Doing {i} with something": str(i) for i in range(174)}


@pytest.mark.parametrize(
    ("folder", "train", "val", "labels"),
    [
        (
            "",
            "something-something-v2-train.json",
            "something-something-v2-validation.json",
            "something-something-v2-labels.json",
        ),
        ("labels/", "train.json", "validation.json", "labels.json"),
    ],
)
def test_ssv2_official(tmp_path: Path, folder: str, train: str, val: str, labels: str) -> None:
    root = tmp_path.resolve()
    put(root, folder + labels, ssv2_labels())
    put(root, folder + train, [{"id": "78687", "label": "doing", "template": "Doing 173 with [something]"}])
    put(root, folder + val, [{"id": 74225, "template": "Doing 0 with [something]"}])
    tree(root, "20bn-something-something-v2/78687.webm", "20bn-something-something-v2/74225.mp4")
    dataset = opened("ssv2", root)
    assert listed(dataset, "train", root) == [("20bn-something-something-v2/78687.webm", 173, "78687.webm")]
    assert listed(dataset, "test", root) == [("20bn-something-something-v2/74225.mp4", 0, "74225.webm")]
    assert dataset.classes[1] == "Doing 1 with something"


def test_ssv2_as_mmaction2_has_it(tmp_path: Path) -> None:
    root = tmp_path.resolve()
    put(root, "annotations/sthv2_train_list_rawframes.txt", "78687 64 3\n2 40 4\n")
    put(root, "annotations/sthv2_val_list_videos.txt", "3.webm 173\n")
    tree(root, "rawframes/78687/img_00001.jpg", "rawframes/2/img_00001.jpg", "videos/3.webm")
    dataset = opened("ssv2", root)
    assert listed(dataset, "train", root) == [("rawframes/78687", 3, "78687"), ("rawframes/2", 4, "2")]
    assert [video.frames for video in dataset.videos("train")] == [64, 40]
    assert listed(dataset, "val", root) == [("videos/3.webm", 173, "3.webm")]


# ---- Diving-48


def test_diving48_official(tmp_path: Path) -> None:
    root = tmp_path.resolve()
    put(root, "Diving48_V2_train.json", [{"vid_name": "a_00001", "label": 47, "start_frame": 0, "end_frame": 99}])
    put(root, "Diving48_V2_test.json", [{"vid_name": "b_00002", "label": 0, "start_frame": 0, "end_frame": 99}])
    put(root, "Diving48_vocab.json", [["Back", str(i), "NoTwis", "PIKE"] for i in range(48)])
    tree(root, "rgb/a_00001.mp4", "rgb/b_00002.mp4")
    dataset = opened("diving48", root)
    assert listed(dataset, "train", root) == [("rgb/a_00001.mp4", 47, "a_00001.mp4")]
    assert listed(dataset, "test", root) == listed(dataset, "val", root) == [("rgb/b_00002.mp4", 0, "b_00002.mp4")]
    assert dataset.classes[2] == "Back+2+NoTwis+PIKE"


def test_diving48_as_mmaction2_has_it(tmp_path: Path) -> None:
    root = tmp_path.resolve()
    put(root, "diving48_train_list_videos.txt", "a.mp4 47\n")
    put(root, "diving48_val_list_videos.txt", "b.mp4 0\nc.mp4 48\n")
    tree(root, "videos/a.mp4", "videos/b.mp4")
    dataset = opened("diving48", root)
    assert listed(dataset, "train", root) == [("videos/a.mp4", 47, "a.mp4")]
    with pytest.raises(DataError, match=quoting("line 2", "'c.mp4 48'", 48, 0, 47)):
        dataset.videos("val")


def test_items_without_a_label_are_told(tmp_path: Path) -> None:
    put(tmp_path, "Diving48_V2_train.json", [{"vid_name": "a", "label": 1}, {"vid_name": "b"}])
    put(tmp_path, "Diving48_V2_test.json", {"a": 1})
    dataset = opened("diving48", tmp_path)
    with pytest.raises(DataError, match=quoting("item 2", "vid_name, label")):
        dataset.videos("train")
    with pytest.raises(DataError, match=quoting("Diving48_V2_test.json", "vid_name, label")):
        dataset.videos("val")


# ---- UCF-101 and HMDB-51


def test_ucf101_official(tmp_path: Path) -> None:
    root = tmp_path.resolve()
    names = ["ApplyEyeMakeup", *(f"Class{i:03d}" for i in range(99)), "YoYo"]
    put(root, "ucfTrainTestlist/classInd.txt", "".join(f"{i} {name}\r\n" for i, name in enumerate(names, start=1)))
    for fold in (1, 2, 3):
        put(root, f"ucfTrainTestlist/trainlist0{fold}.txt", f"YoYo/v_YoYo_g0{fold}_c01.avi 101\n")
        put(root, f"ucfTrainTestlist/testlist0{fold}.txt", f"ApplyEyeMakeup/v_ApplyEyeMakeup_g0{fold}_c02.avi\n")
        tree(root, f"UCF-101/YoYo/v_YoYo_g0{fold}_c01.avi", f"UCF-101/ApplyEyeMakeup/v_ApplyEyeMakeup_g0{fold}_c02.avi")
    for given, fold in ((None, 1), (2, 2), (3, 3)):
        dataset = opened("ucf101", root, fold=given)
        train, test = f"YoYo/v_YoYo_g0{fold}_c01.avi", f"ApplyEyeMakeup/v_ApplyEyeMakeup_g0{fold}_c02.avi"
        assert listed(dataset, "train", root) == [(f"UCF-101/{train}", 100, train)]
        assert listed(dataset, "test", root) == [(f"UCF-101/{test}", 0, test)]


def test_hmdb51_official(tmp_path: Path) -> None:
    root = tmp_path.resolve()
    splits = "testTrainMulti_7030_splits"
    for i in range(51):
        for fold in (1, 2, 3):
            lines = f"a{i}.avi {fold % 3} \nb{i}.avi {(fold + 1) % 3} \nc{i}.avi {(fold + 2) % 3} \n"
            put(root, f"{splits}/class_{i:02d}_test_split{fold}.txt", lines)
    tree(root, "hmdb51_org/class_50/a50.avi")
    dataset = opened("hmdb51", root)
    assert listed(dataset, "train", root)[-1] == ("hmdb51_org/class_50/a50.avi", 50, "class_50/a50.avi")
    assert [v.name for v in dataset.videos("train")] == [f"class_{i:02d}/a{i}.avi" for i in range(51)]
    assert [v.name for v in dataset.videos("test")] == [f"class_{i:02d}/b{i}.avi" for i in range(51)]
    other = opened("hmdb51", None, train_list=root / splits, val_list=root / splits, fold=2)
    assert [v.name for v in other.videos("train")] == [f"class_{i:02d}/c{i}.avi" for i in range(51)]
    assert len(other.files()["train list"]) == 153


@pytest.mark.parametrize(("name", "last"), [("ucf101", 100), ("hmdb51", 50)])
def test_the_small_two_as_mmaction2_has_them(tmp_path: Path, name: str, last: int) -> None:
    root = tmp_path.resolve()
    for fold in (1, 2, 3):
        put(root, f"{name}_train_split_{fold}_videos.txt", f"jump/a{fold}.avi {last}\n")
        put(root, f"{name}_val_split_{fold}_videos.txt", f"jump/b{fold}.avi 0\n")
    tree(root, "videos/jump/a3.avi", "videos/jump/b3.avi")
    dataset = opened(name, root, fold=3)
    assert listed(dataset, "train", root) == [("videos/jump/a3.avi", last, "jump/a3.avi")]
    assert listed(dataset, "val", root) == [("videos/jump/b3.avi", 0, "jump/b3.avi")]


# ---- what holds for all


def test_class_names_are_found_beside_a_list_that_is_given(tmp_path: Path) -> None:
    root = tmp_path.resolve()
    put(root, "lists/train.json", [{"id": 1, "template": "Doing 3 with [something]"}])
    put(root, "lists/validation.json", [{"id": 2, "template": "Doing 4 with [something]"}])
    given = {"train_list": root / "lists/train.json", "val_list": root / "lists/validation.json"}
    with pytest.raises(DataError, match=quoting("something-something-v2-labels.json", "labels.json")):
        opened("ssv2", root, **given).videos("train")
    put(root, "lists/labels.json", ssv2_labels())
    assert [video.label for video in opened("ssv2", root, **given).videos("train")] == [3]


def test_a_data_set_of_ones_own_is_a_few_lines(tmp_path: Path) -> None:
    class Mine(AnnotatedDataset):
        name = "mine"
        summary = "mine"
        count = 3
        lists = ("mine_{split}.txt",)

    root = tmp_path.resolve()
    put(root, "mine_train.txt", "a.mp4 2\n")
    put(root, "mine_val.txt", "b.mp4 0\nc.mp4 3\n")
    tree(root, "videos/a.mp4")
    dataset = Mine(DataSource(root=root))
    assert listed(dataset, "train", root) == [("videos/a.mp4", 2, "a.mp4")]
    with pytest.raises(DataError, match=quoting("'c.mp4 3'", 3, 0, 2)):
        dataset.videos("val")


def test_lists_that_are_given_go_before_those_that_are_found(tmp_path: Path) -> None:
    root = tmp_path.resolve()
    put(root, "train_video_list.txt", "a.mp4 1\n")
    put(root, "val_video_list.txt", "b.mp4 2\n")
    put(root, "mine/train.csv", kinetics_csv(400))
    put(root, "mine/test.txt", f"{root}/elsewhere/t.mp4 9\n")
    tree(root, "train/a.mp4", "val/b.mp4", "elsewhere/t.mp4")
    given = {"train_list": root / "mine/train.csv", "test_list": root / "mine/test.txt"}
    dataset = opened("k400", root, **given)
    assert len(dataset.videos("train")) == 400
    assert dataset.classes[5] == "class 005"
    assert listed(dataset, "val", root) == [("val/b.mp4", 2, "b.mp4")]
    assert listed(dataset, "test", root) == [("elsewhere/t.mp4", 9, f"{root}/elsewhere/t.mp4")]
    assert dataset.files().keys() == {"train list", "val list", "test list"}
    assert dataset.notes() == (f"k400 val list = {root}/val_video_list.txt",)


def test_where_nothing_is_found_every_place_is_named(tmp_path: Path, wording: Wording) -> None:
    source = DataSource(root=tmp_path)
    train, val = source_problems([DATASETS.get("ssv2")(source)], source)
    names = ("sthv2_train_list_videos.txt", "train_video_list.txt", "sthv2_train_list_rawframes.txt")
    names = (*names, "something-something-v2-train.json", "train.json")
    places = (tmp_path, *(tmp_path / name for name in ("annotations", "annotation", "labels", "lists")))
    assert quotes(train, "ssv2", *names, *places, "train_list (--train-list FILE)")
    assert quotes(val, "ssv2", "something-something-v2-validation.json", "--val-list")
    told = [train, val]
    named = DataSource(class_names=tmp_path / "names.txt")
    nowhere = source_problems([DATASETS.get("k400")(named)], named)[0]
    assert quotes(nowhere, "k400", "train_list (--train-list FILE)", "data_root (--data-root FOLDER)")
    train, val = source_problems([DATASETS.get("list")(source)], source)
    assert quotes(train, "list", "train_list (--train-list FILE)") and "data_root" not in train
    assert quotes(val, "list", "val_list (--val-list FILE)") and "data_root" not in val
    wording([*told, nowhere, train, val])
    # an evaluation needs no training list
    put(tmp_path, "validation.json", [{"id": 1, "template": "x"}])
    assert source_problems([DATASETS.get("ssv2")(source)], source, ("test",)) == []


def test_what_does_not_go_with_a_data_set_is_told(tmp_path: Path, wording: Wording) -> None:
    file = tmp_path / "l.txt"
    file.touch()
    names = ("k400", "motion", "list", "folder", "ucf101")
    nowhere = source_problems([DATASETS.get(name)() for name in names], DataSource())
    assert len(nowhere) == 1 and field_of(nowhere[0]) == "k400, list, folder, ucf101"
    assert quotes(nowhere[0], "data_root (--data-root FOLDER)", "train_list", "val_list")
    source = DataSource(train_list=file, val_list=file, fold=2)
    motion = source_problems([DATASETS.get("motion")(source)], source)
    train, val, fold = motion
    assert quotes(train, f"train_list is '{file}'", "motion") and quotes(val, f"val_list is '{file}'", "motion")
    assert quotes(fold, "fold is 2", "motion")
    two = source_problems([DATASETS.get(name)(source) for name in ("ucf101", "hmdb51")], source)
    assert len(two) == 1 and quotes(two[0], "train_list, val_list", 2)
    wording([*nowhere, *motion, *two])


def test_labels_from_is_of_lists_of_ones_own(tmp_path: Path, wording: Wording) -> None:
    put(tmp_path, "train.csv", kinetics_csv(400))
    put(tmp_path, "val.csv", HEADER + "class 001,abcdefghijk,1,2,x\n")
    put(tmp_path, "mine.txt", "a.mp4 1\nb.mp4 400\n")
    source = DataSource(root=tmp_path, labels_from=1)
    names = ("motion", "folder", "k400")
    problems = source_problems([DATASETS.get(name)(source) for name in names], source)
    assert all(quotes(told, "labels_from is 1", name, 0) for told, name in zip(problems, names, strict=True))
    wording(problems)
    given = source.model_copy(update={"train_list": tmp_path / "mine.txt"})
    dataset = DATASETS.get("k400")(given)
    assert source_problems([dataset], given) == []
    assert [video.label for video in dataset.videos("train")] == [0, 399]
    # the official list beside it has its own numbers; here names, whose order the label map tells
    put(tmp_path, "label_map.txt", "".join(f"class {i:03d}\n" for i in range(400)))
    assert [video.label for video in DATASETS.get("k400")(given).videos("val")] == [1]
    # it says nothing of where a data set is
    alone = DataSource(labels_from=1)
    (problem,) = source_problems([DATASETS.get("list")(alone)], alone)
    assert quotes(problem, "list", "data_root")


def test_official_numbers_start_at_0_whatever_is_said_of_lists(tmp_path: Path) -> None:
    put(tmp_path, "Diving48_V2_test.json", [{"vid_name": "b", "label": 0}, {"vid_name": "c", "label": 47}])
    put(tmp_path, "mine.csv", "path,label\na.mp4,1\nb.mp4,48\n")
    dataset = opened("diving48", tmp_path, train_list=tmp_path / "mine.csv", labels_from=1)
    assert [[v.label for v in dataset.videos(split)] for split in ("train", "val")] == [[0, 47], [0, 47]]


def test_a_label_from_another_column_does_not_make_a_class_each(tmp_path: Path) -> None:
    put(tmp_path, "train.txt", "a.mp4 0\nb.mp4 20240131120000\n")
    with pytest.raises(DataError, match=quoting("label is 20240131120000")):
        _ = opened("list", None, train_list=tmp_path / "train.txt", val_list=tmp_path / "train.txt").classes


def test_a_users_own_lists(tmp_path: Path) -> None:
    root = tmp_path.resolve()
    put(root, "train.csv", "path,label\na.mp4,run\nb.mp4,walk\nsub/c.mp4,run\n")
    put(root, "val.csv", "a2.mp4,walk\n")
    dataset = opened("list", None, train_list=root / "train.csv", val_list=root / "val.csv")
    assert dataset.classes == ("run", "walk")
    # without a root, paths are relative to the list's own folder
    assert [(v.path, v.label) for v in dataset.videos("train")] == [
        (root / "a.mp4", 0),
        (root / "b.mp4", 1),
        (root / "sub/c.mp4", 0),
    ]
    assert [v.label for v in dataset.videos("test")] == [1]
    put(root, "train.txt", "a.mp4 0\nb.mp4 4\n")
    put(root, "val.txt", "c.mp4 5\n")
    numbered = opened("list", root, train_list=root / "train.txt", val_list=root / "val.txt")
    assert numbered.classes == ("0", "1", "2", "3", "4")
    with pytest.raises(DataError, match=quoting("'c.mp4 5'", 5, 0, 4)):
        numbered.videos("val")
    put(root, "names.txt", "".join(f"name {i}\n" for i in range(6)))
    given = {"train_list": root / "train.txt", "val_list": root / "val.txt", "class_names": root / "names.txt"}
    assert opened("list", root, **given).videos("val")[0].label == 5
    put(root, "one.txt", "a.mp4 3\n")
    with pytest.raises(DataError, match=quoting(root / "one.txt")):
        _ = opened("list", root, train_list=root / "one.txt", val_list=root / "val.txt").classes
