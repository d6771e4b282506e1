"""`bench data check`: what is broken, too short or mislabelled is found, and nothing stops it."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from bench.data import validate
from bench.data.dataset import DATASETS, Video
from bench.data.motion.dataset import write_h264
from bench.data.validate import ClipSampling
from bench.spec.source import DataSource
from tests.bench.command import Command, quotes
from tests.bench.data import hanging
from tests.bench.data.conftest import numbered


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two classes with four good videos of 12 and 4 frames, a broken and a missing one, and one in the wrong folder."""
    for name, frames in (("run/a", 12), ("run/b", 12), ("walk fast/c", 12), ("walk fast/short", 4)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_h264(tmp_path / f"{name}.mp4", numbered(frames), fps=8, qp=30)
    (tmp_path / "run/junk.mp4").write_bytes(b"no video " * 99)
    (tmp_path / "names.txt").write_text("run\nwalk_fast\n")
    (tmp_path / "train.txt").write_text("run/a.mp4 0\nrun/b.mp4 1\nrun/junk.mp4 0\n")
    (tmp_path / "val.txt").write_text("walk fast/c.mp4 1\nwalk fast/short.mp4 1\nrun/gone.mp4 0\n")
    return tmp_path


def test_everything_wrong_is_listed(bench: Command, root: Path) -> None:
    lists = ("--train-list", root / "train.txt", "--val-list", root / "val.txt", "--class-names", root / "names.txt")
    said = bench("data", "check", "list", "--data-root", root, *lists, "--workers", "2", "--output", root / "out.csv")
    assert said.code == 1
    lines = said.out.splitlines()
    assert quotes(lines[-1], "list", "train, val, test", "6 videos", "1 missing", "1 broken", "1 mislabelled", 1)
    told = dict(line.rsplit(".mp4: ", maxsplit=1) for line in lines if ".mp4: " in line)
    assert quotes(told["missing: val run/gone"], root / "run/gone.mp4")
    assert "broken: train run/junk" in told
    assert quotes(told["mislabelled: train run/b"], 1, "walk_fast", "run")
    assert quotes(told["too short: val walk fast/short"], 4, 8)
    with (root / "out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["split"], row["video"], row["label"], row["fault"]) for row in rows] == [
        ("val", "run/gone.mp4", "0", "missing"),
        ("train", "run/junk.mp4", "0", "broken"),
        ("train", "run/b.mp4", "1", "mislabelled"),
        ("val", "walk fast/short.mp4", "1", "short"),
    ]
    # one split, decoded whole; a short video alone is not a failure
    (root / "val.txt").write_text("walk fast/c.mp4 1\nwalk fast/short.mp4 1\n")
    said = bench("data", "check", "list", "--data-root", root, *lists, "--split", "val", "--full", "--workers", "1")
    assert said.code == 0
    assert quotes(said.out.splitlines()[-1], "list val", "2 videos", 1)


def test_classes_without_a_training_video_are_told(bench: Command, root: Path) -> None:
    (root / "train.txt").write_text("run/a.mp4 1\nwalk fast/c.mp4 2\nrun/junk.mp4 3\n")
    (root / "val.txt").write_text("run/b.mp4 1\nwalk fast/short.mp4 2\n")
    lists = ("--train-list", root / "train.txt", "--val-list", root / "val.txt", "--frames", "4", "--workers", "1")
    asked = ("data", "check", "list", "--data-root", root, *lists)
    said = bench(*asked, "--output", root / "out.csv")
    assert said.code == 1
    (told,) = [line for line in said.out.splitlines() if "--labels-from 1" in line]
    assert quotes(told, "list", 2, 4, 0, 3)
    assert quotes(said.out.splitlines()[-1], "1 broken", "classes")
    with (root / "out.csv").open(newline="") as file:
        assert [(row["fault"], row["told"]) for row in csv.DictReader(file)][1:] == [("untrained", told)]
    # they alone are a failure too, and there is none where labels start at 1
    (root / "train.txt").write_text("run/a.mp4 1\nwalk fast/c.mp4 2\n")
    assert (bench(*asked, "--split", "val").code, bench(*asked, "--labels-from", "1").code) == (1, 0)


def test_lists_that_cannot_be_used_end_with_code_2(bench: Command, root: Path) -> None:
    (root / "train.txt").write_text("run/a.mp4 0\nrun/b.mp4 7\n")
    lists = ("--train-list", root / "train.txt", "--val-list", root / "val.txt", "--class-names", root / "names.txt")
    said = bench("data", "check", "list", "--data-root", root, *lists)
    assert said.code == 2 and quotes(said.err, "'run/b.mp4 7'", 7, 0, 1)
    said = bench("data", "check", "lsit", "--split", "tset", "--data-root", root / "nosuch", "--fold", "4")
    assert said.code == 2
    marks = (("'lsit'", "'list'"), ("split is 'tset'", "'test'"), (f"data_root is '{root}/nosuch'",))
    marks = (*marks, ("fold is 4", 1, 2, 3))
    assert [len([p for p in said.problems if quotes(p, *mark)]) for mark in marks] == [1, 1, 1, 1]
    assert len(said.problems) == 4


def test_a_decoder_that_hangs_or_crashes_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validate, "decode", hanging.decode)
    videos = []
    for name in ("one", "hangs", "dies", "raises", "two"):
        (tmp_path / f"{name}.mp4").touch()
        videos.append(("train", Video(tmp_path / f"{name}.mp4", 0, name)))
    clip = ClipSampling("uniform", 8, 1, 1)
    found = {v.name: (count, told) for _, v, count, told in validate._decoded(videos, clip, 2, 4.0, False)}
    reasons = {name: told for name, (count, told) in found.items() if count == 0}
    assert found == {"one": (8, ""), "two": (8, "")} | {name: (0, told) for name, told in reasons.items()}
    assert reasons.keys() == {"hangs", "dies", "raises"}
    assert quotes(reasons["hangs"], "4 s") and quotes(reasons["dies"], "SIGABRT")
    assert reasons["raises"] == "MemoryError: no room"


@pytest.mark.parametrize(
    ("clip", "needed"), [(ClipSampling("uniform", 8, 16, 1), 8), (ClipSampling("dense", 8, 16, 3), 113)]
)
def test_a_clip_needs_as_many_frames_as_it_spans(clip: ClipSampling, needed: int) -> None:
    assert clip.needed == needed


def test_a_validation_that_is_the_test_is_looked_at_once(root: Path) -> None:
    source = DataSource(root=root, train_list=root / "train.txt", val_list=root / "val.txt")
    clip = ClipSampling("uniform", 2, 1, 1)
    found = list(validate.examine_videos(DATASETS.get("list")(source), ("val", "test"), clip, workers=1, timeout=60))
    assert [(f.split, f.fault) for f in found] == [("val", "missing")]
