"""Trainings on kept features: the features of the videos, trained on as a training on clips would be."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from bench.data.cache import FrameCache
from bench.data.clips import Clips, Draw, Sample, TestClips
from bench.data.dataset import DATASETS, DataError
from bench.data.decode.base import VideoError
from bench.data.decode.pyav import PyavReader
from bench.data.decode_pool import Reading
from bench.data.feature_file import folder_of
from bench.data.fixed_clips import FixedClips
from bench.errors import UserError
from bench.plugins import load as load_plugins
from bench.run import features
from bench.run.build import image_model
from bench.run.cell import execute
from bench.run.context import WorkerContext
from bench.run.features import FOOTNOTE
from bench.run.loaders import Loaders
from bench.run.matrix import expand
from bench.run.result import Result
from bench.run.sharing import pass_key
from bench.spec import Cell, Matrix, Trial
from tests.bench.conftest import nothing_stays_registered
from tests.bench.data.cache.conftest import make_store

PLUGIN = str(Path(__file__).parents[1] / "plugins" / "small.py")
CPU = torch.device("cpu")


@pytest.fixture(scope="module", autouse=True)
def _registered() -> Iterator[None]:
    with nothing_stays_registered():
        load_plugins([PLUGIN])
        DATASETS.get("small")(None).prepare()
        yield


@pytest.fixture
def context(tmp_path: Path) -> WorkerContext:
    return WorkerContext(CPU, Reading(), "bench run", FrameCache(make_store(tmp_path / "cache")))


def _cell(strategy: str = "frozen", head: str = "linear", **changes: Any) -> Cell:
    recipe = {"epochs": 2, **changes.pop("recipe", {})}
    matrix = Matrix(
        backbones=("vit:tiny@none",),
        strategies=(strategy,),
        heads=(head,),
        datasets=("small",),
        recipe=recipe,
        cache_features=True,
        **changes,
    )
    return expand(matrix).cells[0].model_copy(update={"stages": ("train", "evaluate")})


def _run(cell: Cell, context: WorkerContext, folder: Path) -> Result:
    folder.mkdir()
    return execute(cell, context, folder=folder)


def _files(context: WorkerContext) -> dict[str, int]:
    assert context.cache.store is not None
    folder = folder_of(context.cache.store.folder, "small")
    return {file.name: file.stat().st_mtime_ns for file in folder.glob("*.bin")} if folder.is_dir() else {}


def _same(one: Path, other: Path) -> bool:
    """Test that two cells trained the same parameters and predict the same, to the bit."""
    first, second = load_file(one / "adapter.safetensors"), load_file(other / "adapter.safetensors")
    predicted = [np.load(folder / "predictions.npz") for folder in (one, other)]
    return (
        first.keys() == second.keys()
        and all(torch.equal(first[name], second[name]) for name in first)
        and all(np.array_equal(predicted[0][name], predicted[1][name]) for name in predicted[0])
    )


def _whole_picture(frames: torch.Tensor, side: int) -> torch.Tensor:
    """Square frames (T, 3, H, H) uint8, made to another side with antialiasing."""
    made = F.interpolate(frames.float(), (side, side), mode="bilinear", antialias=True, align_corners=False)
    return made.round().clamp(0, 255)


def test_the_features_are_those_of_the_middle_of_each_segment(context: WorkerContext, tmp_path: Path) -> None:
    cell = _cell()
    _run(cell, context, tmp_path / "cell")
    backbone = image_model(cell).eval()
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (backbone.mean, backbone.std))
    (train,) = [name for name in _files(context) if name.startswith("train")]
    assert context.cache.store is not None
    kept = features.FeatureFile(folder_of(context.cache.store.folder, cell.dataset) / train)
    videos = context.dataset(cell).videos("train")
    assert len(kept) == len(videos)
    for row in (0, 7, len(videos) - 1):
        reader = PyavReader(videos[row].path)
        count = len(reader)
        edges = [round((count - 1) / cell.frames * i) for i in range(cell.frames + 1)]
        middles = [(first + last) // 2 for first, last in pairwise(edges)]
        frames = torch.from_numpy(reader.frames(middles)).permute(0, 3, 1, 2)
        pixels = (_whole_picture(frames, backbone.input_size) / 255 - mean) / std
        with torch.no_grad():
            expected = backbone.finish(_through(backbone, pixels))
        (found,) = kept.read([row]).values()
        # resized in whole numbers there
        assert torch.allclose(found[0], expected, atol=0.05, rtol=0.05)
        assert float(F.cosine_similarity(found[0], expected).min()) > 0.999


def _through(backbone: Any, pixels: torch.Tensor) -> torch.Tensor:
    tokens = backbone.embed(pixels)
    for block in backbone.blocks:
        tokens = block.module(tokens)
    return tokens


@pytest.mark.parametrize(("strategy", "head"), [("frozen", "linear"), ("frozen", "attentive"), ("evl", "linear")])
def test_features_that_are_there_train_as_those_that_are_made(
    strategy: str, head: str, context: WorkerContext, tmp_path: Path
) -> None:
    cell = _cell(strategy, head)
    first = _run(cell, context, tmp_path / "first")
    made = _files(context)
    assert {name.partition("-")[0] for name in made} == {"train", "val"}
    second = _run(cell, replace(context), tmp_path / "second")
    assert _files(context) == made
    assert _same(tmp_path / "first", tmp_path / "second")
    assert first.metrics == second.metrics
    assert FOOTNOTE in first.footnotes
    assert FOOTNOTE in second.footnotes


def test_seeds_and_strategies_of_the_same_states_share_them(context: WorkerContext, tmp_path: Path) -> None:
    # whose bundled weights do not follow from the seed
    cells = [
        expand(
            Matrix(
                backbones=("vit:tiny",),
                strategies=("frozen",),
                datasets=("small",),
                seeds=(seed,),
                recipe={"lr": lr},
                cache_features=True,
            )
        )
        .cells[0]
        .model_copy(update={"stages": ("train", "evaluate")})
        for seed, lr in ((0, 0.01), (1, 0.01), (0, 0.1))
    ]
    for index, cell in enumerate(cells):
        _run(cell, context, tmp_path / str(index))
    assert len(_files(context)) == 2
    assert not _same(tmp_path / "0", tmp_path / "1")


def test_other_frames_have_other_features(context: WorkerContext, tmp_path: Path) -> None:
    _run(_cell(frames=(4,)), context, tmp_path / "four")
    eight = _cell(frames=(8,))
    _run(eight, context, tmp_path / "eight")
    assert len(_files(context)) == 4
    # a plugin's data set or family is another one where its code is, and may draw other frames
    edited = eight.model_copy(update={"sources": {**eight.sources, "dataset": "0123456789abcdef"}})
    _run(edited, context, tmp_path / "edited")
    assert len(_files(context)) == 6
    of_own_code = eight.model_copy(update={"sources": {**eight.sources, "strategy": "0123456789abcdef"}})
    _run(of_own_code, context, tmp_path / "own")
    assert len(_files(context)) == 6


def test_the_order_of_the_videos_is_that_of_a_training_on_clips(context: WorkerContext) -> None:
    cell = _cell(recipe={"batch_size": 6})
    clips = cell.model_copy(update={"cache_features": False})
    backbone = image_model(cell)
    ordinary = Loaders(clips, context.dataset(clips), backbone.input_size, backbone.mean, context)
    kept = _kept_loaders(cell, context)
    assert kept.steps == ordinary.steps
    for epoch, first in ((0, 0), (1, 2)):
        labels = [found.tolist() for _, found in kept.training(epoch, first)]
        assert labels == [found.tolist() for _, found in ordinary.training(epoch, first)]
        assert len(labels) == kept.steps - first


def _kept_loaders(cell: Cell, context: WorkerContext) -> Loaders:
    from bench.run.build import classifier
    from bench.train.evaluate import Predictor

    dataset = context.dataset(cell)
    model = classifier(cell, dataset.classes)
    loaders = Loaders(cell, dataset, model.backbone.input_size, model.backbone.mean, context)
    loaders.keep_features(Predictor(model, CPU, "fp32", 8), {}, lambda event: None)
    return loaders


def test_the_training_does_not_decode_the_videos_again(
    context: WorkerContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = _cell(recipe={"epochs": 3})
    read: list[str] = []
    for kind in (FixedClips, TestClips):
        reading: Callable[[Clips[Any], Draw], Sample] = kind.read

        def counted(clips: Any, draw: Draw, reading: Any = reading) -> Sample:
            read.append(draw.video.name)
            return reading(clips, draw)  # type: ignore[no-any-return]

        monkeypatch.setattr(kind, "read", counted)
    _run(cell, context, tmp_path / "first")
    dataset = context.dataset(cell)
    listed = {split: [video.name for video in dataset.videos(split)] for split in ("train", "val", "test")}
    assert sorted(read) == sorted([*listed["train"], *listed["val"], *listed["test"]])
    read.clear()
    _run(cell, context, tmp_path / "second")
    assert sorted(read) == sorted(listed["test"])


@pytest.fixture
def broken(context: WorkerContext, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The names of a training and of a validation video that cannot be decoded, by split."""
    dataset = DATASETS.get("small")(None)
    gone = {"train": dataset.videos("train")[3], "val": dataset.videos("val")[4]}
    paths = {video.path for video in gone.values()}
    for kind in (FixedClips, TestClips):
        reading: Callable[[Clips[Any], Draw], Sample] = kind.read

        def torn(clips: Any, draw: Draw, reading: Any = reading) -> Sample:
            if draw.video.path in paths:
                raise VideoError(draw.video.path, "it is gone")
            return reading(clips, draw)  # type: ignore[no-any-return]

        monkeypatch.setattr(kind, "read", torn)
    return {split: video.name for split, video in gone.items()}


def test_a_video_that_cannot_be_decoded_is_told_and_another_takes_its_place(
    broken: dict[str, str], context: WorkerContext, tmp_path: Path
) -> None:
    cell = _cell(recipe={"batch_size": 4})
    for name in ("made", "there"):
        result = _run(cell, context, tmp_path / name)
        assert {(video.split, video.name) for video in result.skipped} == set(broken.items())
    assert _same(tmp_path / "made", tmp_path / "there")
    loaders = _kept_loaders(cell, context)
    videos = context.dataset(cell).videos("train")
    labels = [label for _, found in loaders.training(0) for label in found.tolist()]
    order = np.random.default_rng((0, cell.seed, 0)).permutation(len(videos)).tolist()
    other = int(np.random.default_rng((2, cell.seed, 0, 3)).integers(len(videos)))
    assert other != 3
    assert labels == [videos[other if index == 3 else index].label for index in order]


def test_a_video_that_cannot_be_decoded_is_an_error_where_that_is_asked_for(
    broken: dict[str, str], context: WorkerContext, tmp_path: Path
) -> None:
    _run(_cell(), context, tmp_path / "first")
    with pytest.raises(DataError):  # also of features that are there
        _run(_cell(), replace(context, reading=Reading(strict=True)), tmp_path / "second")


def test_features_for_which_there_is_no_room_are_an_error(tmp_path: Path) -> None:
    store = replace(make_store(tmp_path / "cache"), limit_bytes=10_000)
    context = WorkerContext(CPU, Reading(), "bench run", FrameCache(store))
    with pytest.raises(DataError):
        _run(_cell(), context, tmp_path / "cell")
    assert {file.suffix for file in folder_of(store.folder, "small").iterdir()} <= {".lock"}


def test_damaged_features_are_made_anew(context: WorkerContext, tmp_path: Path) -> None:
    _run(_cell(), context, tmp_path / "first")
    assert context.cache.store is not None
    for file in folder_of(context.cache.store.folder, "small").glob("*.bin"):
        file.write_bytes(file.read_bytes()[:-100])
    _run(_cell(), context, tmp_path / "second")
    assert _same(tmp_path / "first", tmp_path / "second")


def test_a_trial_is_evaluated_on_kept_features(context: WorkerContext, tmp_path: Path) -> None:
    trial = {"trial": Trial(number=0, untuned={}), "split": "val", "order_test": False}
    cell = _cell().model_copy(update=trial)
    result = _run(cell, context, tmp_path / "cell")
    predicted = np.load(tmp_path / "cell" / "predictions.npz")
    assert predicted["names"].tolist() == [video.name for video in context.dataset(cell).videos("val")]
    assert result.metrics is not None
    right = predicted["probabilities"].argmax(axis=1) == predicted["labels"]
    assert result.metrics.top1 == pytest.approx(100 * right.mean())


def test_it_is_another_cell_which_trains_by_itself() -> None:
    cell = _cell()
    clips = cell.model_copy(update={"cache_features": False})
    assert cell.key != clips.key
    assert cell.model_key() == clips.model_key()
    assert pass_key(cell) is None
    assert pass_key(clips) is not None


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"strategies": ("joint", "bitfit")}, ["joint", "bitfit"]),
        ({"strategies": ("frozen",), "recipe": {"crop_area": (0.5, 1.0)}}, ["crop_area"]),
        ({"strategies": ("frozen", "joint"), "recipe": {"erase": 0.2, "mixup": 0.8}}, ["erase", "mixup"]),
    ],
)
def test_what_cannot_be_trained_on_features_is_told(changes: dict[str, Any], named: list[str]) -> None:
    with pytest.raises(UserError) as told:
        expand(Matrix(backbones=("vit:tiny@none",), datasets=("small",), cache_features=True, **changes))
    (problem,) = told.value.problems
    assert all(name in problem for name in ["cache_features", *named])


def test_what_trains_in_the_backbone_is_trained_on_clips_beside_it() -> None:
    matrix = Matrix(
        backbones=("vit:tiny@none",), strategies=("frozen", "joint"), datasets=("small",), cache_features=True
    )
    plain = expand(matrix.model_copy(update={"cache_features": False})).cells
    frozen, joint = expand(matrix).cells
    assert (frozen.cache_features, joint.cache_features) == (True, False)
    assert frozen.key != plain[0].key
    assert joint.key == plain[1].key
