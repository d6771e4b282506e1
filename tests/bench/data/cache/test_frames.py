from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from bench.data.cache import FolderStore, FrameCache
from bench.data.clips import TestClips
from bench.data.dataset import Video
from bench.data.decode.base import VideoError
from bench.data.decode.open import open_video
from bench.data.motion.dataset import write_h264
from tests.bench.data.cache.conftest import make_store
from tests.bench.data.conftest import number_of, numbered
from tests.bench.data.test_clips import pixels, train

Opened = Callable[[], list[str]]


def test_a_video_is_decoded_once_and_to_the_same_bits(
    store: FolderStore, good: tuple[Video, ...], opened: Opened
) -> None:
    cache = FrameCache(store)
    order = [5, 3, 3, 16, 0]
    for _ in range(3):
        for i, video in enumerate(good):
            reader, plain = cache.open(video.path), open_video(video.path)
            assert len(reader) == len(plain) == 17 + i and reader.decoder == plain.decoder
            assert np.array_equal(reader.frames(order), plain.frames(order))
            reader.close()
    assert opened() == [video.name for video in good]


def test_cells_share_what_was_decoded(store: FolderStore, good: tuple[Video, ...], opened: Opened) -> None:
    for seed in range(2):  # cells
        cache = FrameCache(store)
        test = TestClips(good, "uniform", 4, 4, 1, 1, 32, cache=cache)
        for epoch in range(2):
            for i in range(6):
                ours, theirs = train(good, seed, cache=cache)[epoch, i], train(good, seed, cache=cache)[epoch, i]
                assert torch.equal(pixels(ours), pixels(theirs)) and test[i].clip is not None
    assert sorted(opened()) == [video.name for video in good]


def test_without_a_store_nothing_is_kept(good: tuple[Video, ...], opened: Opened) -> None:
    for _ in range(2):
        FrameCache().open(good[0].path).close()
    assert len(opened()) == 2


@pytest.mark.parametrize("of", ["size", "time"])
def test_a_changed_file_is_decoded_anew(store: FolderStore, tmp_path: Path, of: str) -> None:
    cache, path = FrameCache(store), tmp_path / "a.mp4"
    for shift in (3, 1):
        write_h264(path, numbered(6)[shift:][:2], 8, 10)
        # a box of the type `free` is skipped: the file gets the size that is asked for
        content = path.read_bytes()
        padding = 30_000 + (shift if of == "size" else 0) - len(content)
        path.write_bytes(content + padding.to_bytes(4, "big") + b"free" + bytes(padding - 8))
        os.utime(path, ns=(7, 7 if of == "size" else shift))
        assert number_of(cache.open(path).frames([0, 1])) == [shift, shift + 1]
    assert len([*store.folder.glob("??/*")]) == 1  # the old frames have gone


def test_decoders_and_sizes_have_frames_of_their_own(
    store: FolderStore, good: tuple[Video, ...], opened: Opened
) -> None:
    cache, path = FrameCache(store), good[0].path
    for _ in range(2):
        assert cache.open(path, "pyav").decoder == "pyav"
        assert cache.open(path).frames([2]).shape == (1, 48, 64, 3)
        small = cache.open(path, short_side=24).frames([2])
        assert small.shape == (1, 24, 32, 3) and number_of(small) == [2]
        assert cache.open(path, short_side=500).frames([2]).shape == (1, 48, 64, 3)  # nothing is enlarged
    assert len(opened()) == 4


@pytest.mark.parametrize("order", [[-1], [17], [0, 17]], ids=str)
def test_indices_outside_the_video_are_refused(store: FolderStore, good: tuple[Video, ...], order: list[int]) -> None:
    with pytest.raises(IndexError):
        FrameCache(store).open(good[0].path).frames(order)


def test_videos_beyond_the_limit_are_decoded_each_time(good: tuple[Video, ...], opened: Opened, tmp_path: Path) -> None:
    one = 48 * 64 * 3 * 19
    store = make_store(tmp_path / "c", 2 * one)
    cache = FrameCache(store)
    for _ in range(3):
        for video in good[:3]:
            assert number_of(cache.open(video.path).frames([16, 2])) == [16, 2]
        assert store.used_bytes <= 2 * one
    names = opened()
    assert names.count("0.mp4") == names.count("1.mp4") == 1 and names.count("2.mp4") >= 3


def test_what_is_missing_or_broken_is_told_as_without_a_cache(store: FolderStore, folder: Path) -> None:
    cache = FrameCache(store)
    for name in ("missing.mp4", "empty.mp4", "junk.mp4"):
        for _ in range(2):
            with pytest.raises(VideoError) as ours:
                cache.open(folder / name)
            with pytest.raises(VideoError) as theirs:
                open_video(folder / name)
            assert str(ours.value) == str(theirs.value)


def test_a_video_that_is_broken_at_its_end_still_shows_its_beginning(
    store: FolderStore, good: tuple[Video, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(type(open_video(good[0].path))):  # type: ignore[misc]
        def _read(self, indices: list[int]) -> np.ndarray:
            if max(indices) > 9:
                raise VideoError(self.path, "cannot decode frame 10")
            return super()._read(indices)

    monkeypatch.setattr("bench.data.cache.frames.open_video", lambda path, *_: Broken(path, None))
    cache = FrameCache(store)
    for _ in range(2):
        reader = cache.open(good[0].path)
        assert number_of(reader.frames([9, 4])) == [9, 4]
        with pytest.raises(VideoError, match="frame 10"):
            reader.frames([10])
    assert store.used_bytes == 0


def test_a_library_that_takes_over_midway_is_not_cached(
    store: FolderStore, good: tuple[Video, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clip is of one library's frames; a whole video would be of both."""

    class Switching(type(open_video(good[0].path, "pyav"))):  # type: ignore[misc]
        decoder = "decord"

        def _read(self, indices: list[int]) -> np.ndarray:
            if max(indices) > 9:
                self.decoder = "pyav"
            return super()._read(indices)

    monkeypatch.setattr("bench.data.cache.frames.open_video", lambda path, *_: Switching(path, None))
    for _ in range(2):
        reader = FrameCache(store).open(good[0].path)
        assert reader.frames([3]).shape and reader.decoder == "decord"


def test_a_copy_for_another_process_finds_the_files(
    good: tuple[Video, ...], store: FolderStore, opened: Opened
) -> None:
    FrameCache(store).open(good[0].path).close()
    sent = pickle.dumps(FrameCache(store))
    assert len(sent) < 1000
    assert number_of(pickle.loads(sent).open(good[0].path).frames([5])) == [5]
    assert opened() == ["0.mp4"]


@pytest.mark.parametrize("room", [2**20, 0])
def test_a_process_keeps_small_videos_at_hand(
    store: FolderStore, good: tuple[Video, ...], opened: Opened, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    monkeypatch.setattr("bench.data.cache.frames._MEMORY", room)
    cache, order = FrameCache(store), [5, 3, 3, 16, 0]
    expected = FrameCache().open(good[0].path, "auto", 16).frames(order)
    for _ in range(2):
        reader = cache.open(good[0].path, "auto", 16)
        reader.close()  # it may be asked again all the same
        reader = cache.open(good[0].path, "auto", 16)
        assert np.array_equal(reader.frames(order), expected)
        for file in store.folder.glob("??/*"):
            file.unlink()
    assert len(opened()) == (2 if room else 3)
