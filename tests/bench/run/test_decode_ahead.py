"""Small data sets are decoded before their cells begin, others by the cells that show them."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from bench.data.cache import FolderStore, FrameCache
from bench.data.cache.entry import CacheKey
from bench.data.dataset import SPLITS
from bench.data.decode.open import open_video
from bench.data.motion.dataset import Motion
from bench.run import start
from tests.bench import make

CELL = make.cell()


class _Told:
    """A listener that keeps what it is told of preparations."""

    def __init__(self) -> None:
        self.preparations: list[tuple[str, int, int]] = []

    def preparing(self, what: str, done: int, total: int) -> None:
        self.preparations.append((what, done, total))


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    dataset = Motion(train=2, val=1, test=1, cache=tmp_path_factory.mktemp("videos"))
    dataset.prepare()
    return [video.path for split in SPLITS for video in dataset.videos(split)]


def _ahead(
    monkeypatch: pytest.MonkeyPatch, folder: Path, videos: list[Path], small: bool = True, fewest: int = 1
) -> tuple[FolderStore, list[tuple[str, int, int]]]:
    """Decode ahead as far as that is to be done; the store, and what was told meanwhile."""
    monkeypatch.setattr(start, "DATASETS", {"motion": lambda source: SimpleNamespace(small=small)})
    monkeypatch.setattr(start, "_WORTH_A_PROCESS", fewest)
    store = FolderStore(folder / "store", 2**30)
    store.prepare()
    told = _Told()
    start._decode_ahead([CELL], videos, FrameCache(store), told)  # type: ignore[arg-type]
    return store, told.preparations


def test_every_video_of_a_small_data_set_lies_decoded_in_the_cache(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, videos: list[Path]
) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"not a video")
    store, told = _ahead(monkeypatch, tmp_path, [*videos, broken])
    assert told == [("frames", done, len(videos) + 1) for done in range(1, len(videos) + 2)]
    assert store.find(CacheKey.of(broken, "auto", None)) is None
    for path in videos:
        kept, expected = store.find(CacheKey.of(path, "auto", None)), open_video(path)
        assert kept is not None and kept.decoder == expected.decoder
        every = np.arange(len(expected))
        np.testing.assert_array_equal(kept.frames(every), expected.frames(every))


@pytest.mark.parametrize("case", ["large", "few"])
def test_other_videos_are_left_to_their_cells(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, videos: list[Path], case: str
) -> None:
    few = len(videos) + 1 if case == "few" else 1
    store, told = _ahead(monkeypatch, tmp_path, videos, small=case == "few", fewest=few)
    assert not told and not store.used_bytes


def test_without_a_cache_nothing_is_decoded(monkeypatch: pytest.MonkeyPatch, videos: list[Path]) -> None:
    monkeypatch.setattr(start, "DATASETS", {"motion": lambda source: SimpleNamespace(small=True)})
    monkeypatch.setattr(start, "_WORTH_A_PROCESS", 1)
    told = _Told()
    start._decode_ahead([CELL], videos, FrameCache(), told)  # type: ignore[arg-type]
    assert not told.preparations
