from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from bench.data.augment import Augment
from bench.data.cache import FrameCache
from bench.data.clips import Sample, TestClips, TrainClips, decoded_side
from bench.data.dataset import DataError, Video
from bench.data.decode.base import VideoReader
from bench.data.decode.open import open_video
from bench.data.loader import Batch, ClipLoader, eval_loader, train_loader
from bench.data.motion.dataset import Motion
from bench.data.transforms import TrainTransform
from tests.bench.command import Wording, quotes, quoting
from tests.bench.data.cache.conftest import make_store
from tests.bench.data.conftest import Pools, number_of
from tests.reference import sampling as reference

BROKEN = {"empty.mp4", "junk.mp4", "missing.mp4"}


def train(videos: Sequence[Video], seed: int = 0, **changes: Any) -> TrainClips:
    """Clips of 4 frames of 32x32."""
    given: dict[str, Any] = {"sampling": "uniform", "frames": 4, "stride": 4, "transform": TrainTransform(32)}
    return TrainClips(videos, seed=seed, **{**given, **changes})


def pixels(sample: Sample) -> torch.Tensor:
    assert sample.clip is not None
    return sample.clip


def numbers(clip: torch.Tensor) -> list[int]:
    return number_of(clip.permute(0, 2, 3, 1).numpy())


def epoch(loader: ClipLoader, number: int) -> list[Batch]:
    loader.set_epoch(number)
    return list(loader)


# ---- training clips


def test_a_clip_depends_on_seed_epoch_and_index_alone(good: tuple[Video, ...], tmp_path: Path) -> None:
    clips = train(good)
    first = pixels(clips[3, 2])
    assert first.shape == (4, 3, 32, 32) and first.dtype == torch.uint8
    torch.manual_seed(99)  # neither the global generators nor what was drawn before matter
    np.random.seed(99)
    _ = clips[0, 0]
    assert torch.equal(pixels(clips[3, 2]), first)
    assert torch.equal(pixels(train(good, cache=FrameCache(make_store(tmp_path)))[3, 2]), first)
    for other in (clips[4, 2], train(good, seed=1)[3, 2]):
        assert not torch.equal(pixels(other), first)


def test_without_augmentation_a_clip_is_torchvisions_crop_and_flip(good: tuple[Video, ...]) -> None:
    for number, index in ((0, 1), (3, 2), (5, 0)):
        frames = train(good, transform=lambda clip: clip)[number, index].clip
        torch.manual_seed(int(np.random.default_rng((1, 0, number, index)).integers(2**63)))
        crop = v2.RandomResizedCrop(32, scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3), antialias=True)
        assert torch.equal(pixels(train(good)[number, index]), v2.RandomHorizontalFlip(0.5)(crop(frames)))


def test_augmentation_is_drawn_from_the_samples_own_seed(good: tuple[Video, ...]) -> None:
    augment = Augment((0.5, 0.5, 0.5), (4, 7), 0.5, 0.5)
    plain, augmented = train(good), train(good, augment=augment)
    samples = [(plain[key], augmented[key]) for key in ((0, 1), (1, 1), (0, 2))]
    for before, after in samples:
        assert before.seed == after.seed
        assert torch.equal(augment(pixels(before), before.seed), pixels(after))
    assert len({before.seed for before, _ in samples}) == 3


def test_workers_and_the_device_augment_alike(good: tuple[Video, ...], pools: Pools) -> None:
    augment = Augment((0.5, 0.5, 0.5), (4, 7), 0.5, 0.5)
    late = epoch(train_loader(train(good), 3, pin_memory=False), 1)
    clips = train(good, augment=augment)
    early = epoch(train_loader(clips, 3, pools(clips, count=2), pin_memory=False), 1)
    for before, after in zip(late, early, strict=True):
        assert torch.equal(augment.batch(before.clips, before.seeds), after.clips)


def test_drawing_a_clip_leaves_the_global_generator_alone(good: tuple[Video, ...]) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    _ = train(good)[0, 0]
    for _ in train_loader(train(good), 2, pin_memory=False):
        pass
    assert torch.equal(torch.rand(3), expected)


def test_frames_are_those_that_sampling_drew(good: tuple[Video, ...]) -> None:
    clips = train(good, transform=lambda clip: clip)
    for e in range(20):
        sample = clips[e, 1]
        assert sample.clip is not None and (sample.label, sample.name) == (1, "1.mp4")
        for i, number in enumerate(numbers(sample.clip)):
            first, last = reference.segment(18, 4, i)
            assert first <= number <= last
    dense = train(good, transform=lambda clip: clip, sampling="dense", stride=3)[0, 1].clip
    assert dense is not None and np.diff(numbers(dense)).tolist() == [3, 3, 3]


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing(mixed: tuple[Video, ...], workers: int, pools: Pools, tmp_path: Path) -> None:
    alone = train_loader(train(mixed), 2, pin_memory=False)
    clips = train(mixed, cache=FrameCache(make_store(tmp_path)))
    loader = train_loader(clips, 2, pools(clips, count=workers), pin_memory=False)
    for number in (0, 1, 7):
        expected, batches = epoch(alone, number), epoch(loader, number)
        assert len(batches) == len(expected) == 4
        for ours, theirs in zip(batches, expected, strict=True):
            assert ours.names == theirs.names and torch.equal(ours.labels, theirs.labels)
            assert torch.equal(ours.clips, theirs.clips)
    assert loader.skipped == alone.skipped and set(loader.skipped) <= BROKEN and loader.skipped
    assert loader.decoders == alone.decoders != set()


def test_epochs_are_shuffled_each_their_own_way(good: tuple[Video, ...]) -> None:
    loader = train_loader(train(good), 3, pin_memory=False)
    orders = [tuple(name for batch in epoch(loader, e) for name in batch.names) for e in (0, 1, 2, 0)]
    assert orders[0] == orders[3] and len(set(orders)) > 1
    assert all(set(order) == {f"{i}.mp4" for i in range(6)} for order in orders)
    other = train_loader(train(good, seed=1), 3, pin_memory=False)
    assert any(tuple(n for b in epoch(other, e) for n in b.names) != orders[e] for e in range(3))


@pytest.mark.parametrize(("batch_size", "sizes"), [(4, [4]), (6, [6]), (8, [6]), (3, [3, 3]), (1, [1] * 6)])
def test_a_short_last_batch_is_dropped_unless_it_is_the_only_one(
    good: tuple[Video, ...], batch_size: int, sizes: list[int]
) -> None:
    loader = train_loader(train(good), batch_size, pin_memory=False)
    assert [len(batch) for batch in loader] == sizes and len(loader) == len(sizes)


def test_a_broken_video_is_replaced_counted_and_named(mixed: tuple[Video, ...]) -> None:
    loader = train_loader(train(mixed), 3, pin_memory=False)
    batches = epoch(loader, 0)
    assert sum(len(batch) for batch in batches) == 9
    assert set(loader.skipped) == BROKEN
    assert "0 bytes" in loader.skipped["empty.mp4"].reason and "No such file" in loader.skipped["missing.mp4"].reason
    assert sum(video.times for video in loader.skipped.values()) == sum(len(batch.skipped) for batch in batches) >= 3
    for batch in batches:
        assert not BROKEN & set(batch.names)
        assert all(label == int(name.split(".")[0]) for label, name in zip(batch.labels, batch.names, strict=True))


def test_the_replacement_is_drawn_anew_each_epoch(mixed: tuple[Video, ...]) -> None:
    clips = train(mixed)
    names = [clips[e, 2].name for e in range(12)]
    assert mixed[2].name == "empty.mp4" and len(set(names)) > 1
    assert names == [clips[e, 2].name for e in range(12)]


def test_a_folder_of_broken_videos_stops_the_training(folder: Path, wording: Wording) -> None:
    broken = tuple(Video(folder / f"none{i}.mp4", 0, f"none{i}.mp4") for i in range(40))
    with pytest.raises(DataError, match=quoting(16, "none0.mp4", "No such file")) as caught:
        _ = train(broken)[0, 0]
    wording([caught.value])
    with pytest.raises(DataError, match=quoting(16, "No such file")):
        list(train_loader(train(broken), 4, pin_memory=False))


def test_a_negative_seed_is_refused(good: tuple[Video, ...]) -> None:
    with pytest.raises(ValueError, match=quoting("seed is -1")):
        train(good, seed=-1)


# ---- test views


def test_views_are_ordered_crops_by_clips(good: tuple[Video, ...]) -> None:
    clips = TestClips(good, "dense", frames=4, stride=2, clips=2, crops=3, size=32)
    views = clips[5].clip
    assert clips.views == 6 and views is not None and views.shape == (6, 4, 3, 32, 32)
    left = [float(view[:, :, :, :16].float().mean()) for view in views]
    starts = [clip[0] for clip in reference.dense_test(22, 4, 2, 2)]
    # the pictures rise in brightness from left to right, and by 5 from frame to frame
    assert left[0] < left[2] < left[4] and left[1] < left[3] < left[5]
    for crop in range(3):
        assert left[2 * crop + 1] - left[2 * crop] == pytest.approx(5 * (starts[1] - starts[0]), abs=0.5)


def test_uniform_sampling_has_one_clip(good: tuple[Video, ...]) -> None:
    clips = TestClips(good, "uniform", frames=8, stride=16, clips=3, crops=1, size=48)
    views = clips[0].clip
    assert clips.views == 1 and views is not None and views.shape == (1, 8, 3, 48, 48)
    seen = views[0].float().mean(dim=(1, 2, 3))
    assert ((seen - seen[0]) / 5).round().int().tolist() == [0, 2, 4, 6, 8, 10, 12, 14]


def test_validation_is_one_enlarged_view(good: tuple[Video, ...]) -> None:
    clips = TestClips(good, "dense", frames=4, stride=2, clips=1, crops=1, size=32, validation=True)
    full = TestClips(good, "dense", frames=4, stride=2, clips=1, crops=1, size=32)
    ours, theirs = clips[0].clip, full[0].clip
    assert ours is not None and theirs is not None and ours.shape == theirs.shape == (1, 4, 3, 32, 32)
    contrast = [float(x[0, 0, 0, 16, -1]) - float(x[0, 0, 0, 16, 0]) for x in (ours, theirs)]
    assert contrast[0] < contrast[1]
    with pytest.raises(ValueError, match=quoting(1, 1, 3, 1)):
        TestClips(good, "dense", 4, 2, 3, 1, 32, validation=True)
    with pytest.raises(ValueError, match=quoting(1, 1, 1, 1, 40)):
        TestClips(good, "dense", 4, 2, 1, 1, 32, validation=True, view_side=40)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_test_video_is_left_out_counted_and_named(
    mixed: tuple[Video, ...], workers: int, pools: Pools
) -> None:
    clips = TestClips(mixed, "uniform", 4, 4, 1, 1, 32)
    loader = eval_loader(clips, 2, pools(clips, count=workers) if workers else None, pin_memory=False)
    for times in (1, 2):
        names = [name for batch in loader for name in batch.names]
        assert names == [f"{i}.mp4" for i in range(6)]  # the list's order, none dropped
        assert {name: video.times for name, video in loader.skipped.items()} == dict.fromkeys(BROKEN, times)


@pytest.mark.parametrize("workers", [0, 1])
def test_strict_names_the_first_broken_video(mixed: tuple[Video, ...], workers: int, pools: Pools) -> None:
    clips = TestClips(mixed, "uniform", 4, 4, 1, 1, 32)
    loader = eval_loader(clips, 2, pools(clips) if workers else None, strict=True, pin_memory=False)
    with pytest.raises(DataError, match=quoting("empty.mp4", "0 bytes", "--strict")):
        list(loader)
    with pytest.raises(DataError, match=quoting("--strict")):
        list(train_loader(train(mixed), 2, strict=True, pin_memory=False))


def test_whatever_the_decoder_raises_breaks_its_video_alone(
    good: tuple[Video, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    def opened(path: Path, *how: Any) -> VideoReader:
        if path.name == "3.mp4":
            raise OverflowError("nine billion rows")
        return open_video(path, *how)

    monkeypatch.setattr("bench.data.cache.frames.open_video", opened)
    sample = TestClips(good, "uniform", 4, 4, 1, 1, 32)[3]
    assert sample.clip is None
    ((name, reason),) = sample.skipped
    assert name == "3.mp4" and quotes(reason, "OverflowError: nine billion rows")


def test_a_batch_of_broken_videos_alone_is_passed_over(mixed: tuple[Video, ...]) -> None:
    loader = eval_loader(TestClips(mixed, "uniform", 4, 4, 1, 1, 32), 1, pin_memory=False)
    assert [len(batch) for batch in loader] == [1] * 6 and len(loader) == 9
    assert set(loader.skipped) == BROKEN


def test_an_empty_list_of_videos_is_refused(wording: Wording) -> None:
    with pytest.raises(ValueError) as caught:
        eval_loader(TestClips((), "uniform", 4, 4, 1, 1, 32), 2)
    wording([caught.value])


def test_the_decoder_is_told(good: tuple[Video, ...]) -> None:
    loader = eval_loader(TestClips(good, "uniform", 4, 4, 1, 1, 32, decoder="pyav"), 4, pin_memory=False)
    assert loader.decoders == set()
    assert all(batch.decoders == {"pyav"} for batch in loader)
    assert loader.decoders == {"pyav"}


def test_large_frames_are_made_smaller_as_they_are_decoded(good: tuple[Video, ...], tmp_path: Path) -> None:
    """Of 64x48: what the transform gets, in training and, seen in its first step, in testing."""
    clips = train(good, transform=lambda clip: clip, short_side=36)
    assert pixels(clips[0, 0]).shape == (4, 3, 36, 48)
    assert pixels(train(good, transform=lambda clip: clip, short_side=99)[0, 0]).shape == (4, 3, 48, 64)
    store = make_store(tmp_path)
    _ = TestClips(good, "uniform", 4, 4, 1, 1, 32, cache=FrameCache(store), short_side=36)[0]
    assert store.used_bytes == pytest.approx(17 * 36 * 48 * 3, abs=600)  # and what the entry says of itself
    _ = TestClips(good, "uniform", 4, 4, 1, 1, 32, cache=FrameCache(store))[0]
    assert store.used_bytes == pytest.approx(17 * (36 * 48 + 48 * 64) * 3, abs=1200)


def test_rendered_videos_keep_their_size_and_others_get_the_recipes() -> None:
    rendered, mine = Motion(), Motion()
    mine.content = ""
    assert decoded_side(rendered, 32) is None
    assert (decoded_side(mine, 224), decoded_side(mine, 336)) == (256, 384)
    # a test's crop may be taken from a larger picture; released pixels are made from the whole one, once
    assert [decoded_side(mine, 224, side) for side in (240, 256, 288)] == [256, 256, 288]
    assert decoded_side(mine, 224, 288, "released") is decoded_side(rendered, 32, 40) is None
