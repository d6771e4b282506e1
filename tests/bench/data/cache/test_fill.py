from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench.data.cache import FrameCache, frames
from bench.data.cache.entry import CacheKey
from bench.data.cache.frames import Filled, fill_one
from bench.data.cache.store import FolderStore
from bench.data.dataset import DataError, Video, VideoDataset, register_dataset
from bench.data.feature_file import folder_of, lock_of
from tests.bench.command import Command, Wording, quotes
from tests.bench.data import hanging
from tests.bench.data.cache.conftest import files, make_store
from tests.bench.data.conftest import number_of


def test_a_decoder_that_hangs_or_crashes_stops_nothing(
    store: FolderStore, mixed: tuple[Video, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frames, "fill_one", hanging.fill)
    monkeypatch.setattr(frames, "_PATIENCE", 20.0)
    found = {one.path.name: one for one in frames.fill(store, [video.path for video in mixed], None, workers=2)}
    assert {name for name, one in found.items() if one.outcome == "new"} == {"0.mp4", "3.mp4", "4.mp4", "5.mp4"}
    assert len(files(store)) == 4
    reasons = {name: one.reason for name, one in found.items() if one.outcome == "broken"}
    assert quotes(reasons.pop("1.mp4"), "20 s") and quotes(reasons.pop("2.mp4"), 3)
    assert reasons.pop("missing.mp4") == "No such file or directory"
    assert quotes(reasons.pop("empty.mp4"), "0 bytes") and list(reasons) == ["junk.mp4"]


class Listed(VideoDataset):
    """The mixed videos, all for training but the last."""

    name = "listed"
    summary = "for tests"
    classes = tuple("abcdefghij")
    given: tuple[Video, ...] = ()

    def prepare(self, progress: Any = None) -> None:
        if not self.given:
            raise DataError("there is nothing to prepare")

    def videos(self, split: str) -> tuple[Video, ...]:
        return {"train": self.given[:-1], "val": (), "test": self.given[-1:]}[split]


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mixed: tuple[Video, ...]) -> FolderStore:
    """The user's cache, and the data set `listed`, decoded in this process."""

    def here(store: FolderStore, paths: list[Path], short_side: int | None, workers: int) -> Any:
        for path in paths:
            try:
                yield fill_one(store, short_side, path)
            except DataError as error:
                yield Filled(path, "broken", reason=error.reason)  # type: ignore[attr-defined]

    monkeypatch.setattr(frames, "fill", here)
    monkeypatch.setenv("AIM_BENCH_CACHE", str(tmp_path))
    monkeypatch.setattr(Listed, "given", mixed)
    register_dataset("listed")(Listed)
    return make_store(tmp_path / "frames")


def test_prepare_fills_the_cache_goes_on_and_clears_it(
    bench: Command, disk: FolderStore, good: tuple[Video, ...]
) -> None:
    said = bench("data", "prepare", "listed", "--split", "test")
    assert said.code == 1 and quotes(said.out, "listed", disk.folder, 0, 1)  # missing.mp4 alone
    said = bench("data", "prepare", "listed")
    assert said.code == 0
    assert quotes(said.out, "listed", disk.folder, 6, 9, "raw, 1.1 MB", 6)
    assert quotes(said.err, "listed", 3, 10, "g, h, i") and quotes(said.err, "3 videos", "empty.mp4", "0 bytes")
    assert quotes(bench("data", "prepare", "listed").out, "listed", disk.folder, 6, 9, "raw, 1.1 MB", 0)
    small = bench("data", "prepare", "listed", "--short-side", 24, "--cache-format", "jpeg")
    assert quotes(small.out, "listed", 6, 9, "jpeg", 6)
    jpeg = FrameCache(FolderStore(disk.folder, 1, "jpeg"))  # no room: it can only be read
    frames = jpeg.open(good[0].path, "auto", 24).frames([4])
    assert frames.shape == (1, 24, 32, 3) and number_of(frames) == [4]
    assert quotes(bench("data", "prepare", "listed", "--input-size", 28).out, "listed", 6, 9, "raw", 6)
    entry = disk.find(CacheKey.of(good[0].path, "auto", 32))  # as 256 is to 224
    assert entry is not None and entry.frames([4]).shape[1] == 32
    assert len(files(disk)) == 18
    ours, others = (folder_of(disk.folder, name) for name in ("listed", "listed-2"))
    for folder in (ours, others):
        folder.mkdir(parents=True)
        (folder / "train-0.bin").write_bytes(bytes(3_000))
        (folder / ".train-0.bin.0123.tmp").touch()
    (ours / ".train-1.bin.0123.tmp").touch()
    with lock_of(ours / "train-1.bin"):  # is being computed
        assert quotes(bench("data", "prepare", "listed", "--clear").out, 18, "listed", "3.0 KB")
    assert not files(disk) and disk.used_bytes == 0
    assert {file.name for file in ours.iterdir() if file.suffix != ".lock"} == {".train-1.bin.0123.tmp"}
    assert {file.name for file in others.iterdir()} == {"train-0.bin", ".train-0.bin.0123.tmp"}
    assert not quotes(bench("data", "prepare", "listed", "--clear").out, "3.0 KB")


def test_prepare_stops_at_the_limit(bench: Command, disk: FolderStore) -> None:
    said = bench("data", "prepare", "listed", "--cache-limit", "400KB")
    assert said.code == 0 and quotes(said.out, "listed", 2, 9) and quotes(said.err, "400 KB")
    assert disk.used_bytes <= 400_000 and len(files(disk)) == 2


def test_prepare_says_beforehand_that_the_disk_is_too_small(
    bench: Command, disk: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil
    from types import SimpleNamespace

    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=500_000))
    said = bench("data", "prepare", "listed")
    assert said.code == 2 and not files(disk)
    (problem,) = said.problems
    assert quotes(problem, "500 KB", "cache_format jpeg")


def test_an_interrupt_says_that_the_command_goes_on(
    bench: Command, disk: FolderStore, monkeypatch: pytest.MonkeyPatch, wording: Wording
) -> None:
    def interrupted(*_: Any) -> Any:
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr(frames, "fill", interrupted)
    said = bench("data", "prepare", "listed")
    assert said.code == 130
    wording([said.err])


def test_prepare_tells_all_mistakes_at_once(bench: Command) -> None:
    sizes = ("--input-size", 336, "--short-side", 256)
    wrong = ("--split", "trian", "--cache-format", "jpg", "--cache-limit", "20GBB", *sizes)
    said = bench("data", "prepare", "moton", *wrong)
    assert said.code == 2 and len(said.problems) == 5
    for mark in (("'moton'", "'motion'"), ("split is 'trian'", "'train'"), ("cache_format is 'jpg'", "'jpeg'")):
        assert [quotes(problem, *mark) for problem in said.problems].count(True) == 1, mark
    for mark in (("cache_limit is '20GBB'", "'GB'"), ("input_size is 336", "short_side", 256)):
        assert [quotes(problem, *mark) for problem in said.problems].count(True) == 1, mark
