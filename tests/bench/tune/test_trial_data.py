"""The part of a data set that trials see: never a test video."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bench.data.cache import frames
from bench.data.dataset import DATASETS, DataError, Split, Video, VideoDataset
from bench.data.decode_pool import Reading
from bench.data.trial_data import TrialData, footnotes, for_trials
from bench.plugins import load as load_plugins
from bench.run.cell import execute
from bench.run.context import WorkerContext
from bench.run.loaders import Loaders
from bench.run.matrix import expand
from bench.spec import Matrix
from bench.tune.trials import studies
from tests.bench.command import quotes

PLUGIN = str(Path(__file__).parents[1] / "plugins" / "small.py")


class Listed(VideoDataset):
    """Lists of names, of class i % 3 the i-th; class 3 has one video."""

    name = "listed-by-hand"
    summary = "no video is there"

    def __init__(self, val: str, test: str) -> None:
        super().__init__()
        counts = {"train": 60, val: 12, test: 12}
        self.made = {
            name: tuple(Video(Path(f"/{name}/{i}.mp4"), i % 3, f"{name}/{i}.mp4") for i in range(count))
            for name, count in counts.items()
        }
        self.made["train"] += (Video(Path("/train/lone.mp4"), 3, "train/lone.mp4"),)
        self.lists: dict[str, str] = {"train": "train", "val": val, "test": test}

    @property
    def classes(self) -> tuple[str, ...]:
        return ("a", "b", "c", "d")

    def prepare(self, progress: Any = None) -> None:
        pass

    def videos(self, split: Split) -> tuple[Video, ...]:
        return self.made[self.lists[split]]


@pytest.mark.parametrize("test", ["val", "test"])
def test_the_test_videos_are_refused(test: str) -> None:
    data = for_trials(Listed("val", test))
    with pytest.raises(DataError) as error:
        data.videos("test")
    assert quotes(error.value, "listed-by-hand")
    assert data.splits == ("train", "val") and data.classes == ("a", "b", "c", "d") and for_trials(data) is data


def test_validation_videos_of_its_own_choose() -> None:
    dataset = Listed("val", "test")
    data = TrialData(dataset)
    assert data.held_out == () and footnotes(dataset) == []
    assert (data.videos("train"), data.videos("val")) == (dataset.videos("train"), dataset.videos("val"))


@pytest.mark.parametrize("overlap", ["whole", "one video"])
def test_without_them_a_part_of_each_class_is_held_out_of_the_training(overlap: str) -> None:
    dataset = Listed("val", "val" if overlap == "whole" else "test")
    if overlap == "one video":
        dataset.made["val"] += dataset.made["test"][:1]
    data = TrialData(dataset)
    train, val = data.videos("train"), data.videos("val")
    assert set(train) | set(val) == set(dataset.videos("train")) and not set(train) & set(val)
    assert Counter(video.label for video in val) == {0: 4, 1: 4, 2: 4}  # a fifth of 20
    assert Counter(video.label for video in train) == {0: 16, 1: 16, 2: 16, 3: 1}
    assert TrialData(dataset).videos("val") == val
    (note,) = footnotes(dataset)
    assert quotes(note, 12, 61) and footnotes(for_trials(dataset)) == [note]


def test_what_trials_saw_has_a_hash_of_its_own() -> None:
    dataset = Listed("val", "test")
    data = TrialData(dataset)
    before = data.fingerprint()
    dataset.made["test"] = dataset.made["test"][1:]
    assert data.fingerprint() == before
    dataset.made["val"] = dataset.made["val"][1:]
    assert data.fingerprint() != before


@pytest.mark.parametrize("own", [True, False], ids=["validation videos of its own", "those of the test"])
def test_a_trial_is_trained_and_evaluated_without_a_look_at_a_test_video(
    own: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_plugins([PLUGIN])
    dataset = DATASETS.get("small")(None)
    dataset.prepare()
    if not own:
        listed = type(dataset).videos
        monkeypatch.setattr(type(dataset), "videos", lambda self, split: listed(self, split.replace("test", "val")))
    opened: list[Path] = []
    before = frames.open_video

    def noting(path: Path, *arguments: Any, **named: Any) -> Any:
        opened.append(path)
        return before(path, *arguments, **named)

    monkeypatch.setattr(frames, "open_video", noting)
    matrix = Matrix(backbones=("vit:tiny@none",), strategies=("frozen",), datasets=("small",), tune=1, device="cpu")
    (study,) = studies(matrix, expand(matrix).cells)
    trial = study.trials[0].model_copy(update={"train_fraction": 0.25})  # a video of each class: quicker
    context = WorkerContext(torch.device("cpu"), Reading(), "bench run")
    result = execute(trial, context, folder=tmp_path)
    names = {split: {video.name for video in dataset.videos(split)} for split in ("train", "val", "test")}
    with np.load(tmp_path / "predictions.npz") as found:
        chosen_on = set(found["names"])
        right = found["probabilities"].argmax(axis=1) == found["labels"]
    assert chosen_on == names["val"] if own else chosen_on < names["train"]
    assert not chosen_on & names["test"] and opened
    assert not set(opened) & {video.path for video in dataset.videos("test")}
    assert result.metrics is not None and result.metrics.top1 == pytest.approx(100 * right.mean())
    assert result.metrics.listed == len(chosen_on)
    assert set(footnotes(dataset)) <= set(result.footnotes)
    assert bool(footnotes(dataset)) is not own
    assert not (tmp_path / "adapter.safetensors").exists()
    # nor could it, if it were told to
    with pytest.raises(DataError):
        Loaders(trial.model_copy(update={"split": "test"}), context.dataset(trial), 32, (0.5, 0.5, 0.5), context)


def test_where_nothing_can_be_held_out_no_trial_reads_the_test_instead() -> None:
    dataset = Listed("val", "val")
    dataset.made["train"] = dataset.made["train"][-2:]  # of two classes
    for read in (lambda: TrialData(dataset).videos("val"), lambda: footnotes(dataset)):
        with pytest.raises(DataError) as error:
            read()
        assert quotes(error.value, "listed-by-hand")
