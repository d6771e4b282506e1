from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.data.cache import FolderStore, FrameCache
from bench.data.cache.entry import CacheKey
from bench.data.dataset import Video
from tests.bench.command import quotes
from tests.bench.data.cache.conftest import LOG, files, make_store
from tests.bench.data.cache.processes import SPAWN, read_all, write_half
from tests.bench.data.conftest import number_of

ONE = 48 * 64 * 3 * 17  # bytes of the frames of 0.mp4


def side_by_side(log: Path, *arguments: tuple[FolderStore, list[Path]]) -> None:
    barrier = SPAWN.Barrier(len(arguments))
    processes = [SPAWN.Process(target=read_all, args=(*given, log, barrier)) for given in arguments]
    for process in processes:
        process.start()
    for process in processes:
        process.join(600)
        assert process.exitcode == 0


def test_processes_that_start_together_decode_each_video_once(
    store: FolderStore, good: tuple[Video, ...], opened: Callable[[], list[str]], tmp_path: Path
) -> None:
    paths = [video.path for video in good]
    side_by_side(tmp_path / LOG, (store, paths), (store, paths), (store, paths[::-1]))
    assert sorted(opened()) == [video.name for video in good]
    assert store.used_bytes == sum(file.stat().st_size for file in files(store))
    assert len(files(store)) == 6 and not list((store.folder / "tmp").iterdir())


def test_the_limit_holds_for_all_processes_together(good: tuple[Video, ...], tmp_path: Path) -> None:
    store = make_store(tmp_path / "cache", limit_bytes=3 * ONE)
    paths = [video.path for video in good]
    side_by_side(tmp_path / LOG, (store, paths), (store, paths[::-1]))
    assert sum(file.stat().st_size for file in files(store)) == store.used_bytes <= 3 * ONE
    assert len(files(store)) == 2
    (note,) = store.notes()
    assert quotes(note, "470 KB")


def test_a_process_killed_while_it_writes_leaves_nothing_that_is_served(
    store: FolderStore, good: tuple[Video, ...]
) -> None:
    path = good[0].path
    begun = SPAWN.Event()
    process = SPAWN.Process(target=write_half, args=(store, path, begun))
    process.start()
    assert begun.wait(600)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert len(list((store.folder / "tmp").iterdir())) == 1 and not files(store)
    # its lock has gone with it, and the next one writes the entry
    assert number_of(FrameCache(store).open(path).frames([16])) == [16]
    whole = files(store)[0].stat().st_size
    assert store.used_bytes > whole  # what it had reserved
    store.tidy()
    assert not list((store.folder / "tmp").iterdir()) and store.used_bytes == whole


def cut(content: bytes) -> bytes:
    return content[:-1]


def cut_at_the_front(content: bytes) -> bytes:
    return content[1:]


def foreign(content: bytes) -> bytes:
    return b"something else entirely" * 100


def zeroed_end(content: bytes) -> bytes:
    return content[:-4096] + bytes(4096)


def turned(content: bytes) -> bytes:
    return content.replace(b"48, 64", b"64, 48")


def other_path(content: bytes) -> bytes:
    return content.replace(b"/0.mp4", b"/9.mp4")


@pytest.mark.parametrize(
    "damage", [cut, cut_at_the_front, foreign, zeroed_end, turned, other_path, lambda _: b""], ids=lambda f: f.__name__
)
def test_a_file_that_is_not_whole_is_written_anew(
    store: FolderStore, good: tuple[Video, ...], damage: Callable[[bytes], bytes], opened: Callable[[], list[str]]
) -> None:
    cache, path = FrameCache(store), good[0].path
    cache.open(path).close()
    (file,) = files(store)
    whole = file.read_bytes()
    file.write_bytes(damage(whole))
    for _ in range(2):
        assert number_of(cache.open(path).frames([16, 3])) == [16, 3]
    assert file.read_bytes() == whole and len(opened()) == 2


def test_another_version_of_a_decoder_decodes_anew(
    store: FolderStore, good: tuple[Video, ...], monkeypatch: pytest.MonkeyPatch, opened: Callable[[], list[str]]
) -> None:
    FrameCache(store).open(good[0].path).close()
    monkeypatch.setattr("bench.data.cache.entry.library_version", lambda decoder: "99.0")
    for _ in range(2):
        FrameCache(store).open(good[0].path).close()
    assert len(opened()) == 2 and len(files(store)) == 1
    assert store.used_bytes == pytest.approx(files(store)[0].stat().st_size, abs=10)


def test_a_full_disk_stops_the_writing_and_nothing_else(
    store: FolderStore, good: tuple[Video, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    FrameCache(store).open(good[0].path).close()
    before = store.used_bytes
    with monkeypatch.context() as patch:
        patch.setattr("bench.data.cache.entry.write", full)
        assert number_of(FrameCache(store).open(good[1].path).frames([3])) == [3]
    assert store.used_bytes == before and not list((store.folder / "tmp").iterdir())
    (note,) = store.notes()
    assert quotes(note, store.folder, "No space left on device")
    # no other process of the run tries again; what is there is still served
    assert number_of(FrameCache(store).open(good[2].path).frames([3])) == [3]
    assert number_of(FrameCache(store).open(good[0].path).frames([3])) == [3]
    assert len(files(store)) == 1
    # the next run does
    later = FolderStore(store.folder, store.limit_bytes)
    FrameCache(later).open(good[2].path).close()
    assert len(files(store)) == 2 and later.notes() == []


@pytest.mark.parametrize("gone", ["folder", "locks", "tmp", "account"])
def test_a_cache_that_is_removed_while_it_is_used_stops_nothing(
    store: FolderStore, good: tuple[Video, ...], gone: str
) -> None:
    import shutil

    cache = FrameCache(store)
    cache.open(good[0].path).close()
    target = store.folder if gone == "folder" else store.folder / gone
    shutil.rmtree(target) if target.is_dir() else target.unlink()
    for video in good[:2]:
        assert number_of(cache.open(video.path).frames([3])) == [3]


def test_forgetting_a_data_set_leaves_the_others(store: FolderStore, good: tuple[Video, ...], tmp_path: Path) -> None:
    for video in good[:3]:
        for short_side in (None, 24):
            FrameCache(store).open(video.path, "auto", short_side).close()
    FrameCache(make_store(store.folder, format="jpeg")).open(good[0].path).close()
    before = store.used_bytes
    gone, freed = store.forget([good[0].path, good[1].path, tmp_path / "never-there.mp4"])
    assert gone == 5 and store.used_bytes == before - freed == sum(file.stat().st_size for file in files(store))
    left = CacheKey.of(good[2].path, "auto", None)
    assert store.find(left) is not None and len(files(store)) == 2
