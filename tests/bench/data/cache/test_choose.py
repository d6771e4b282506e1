from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench.data.cache import FolderStore, FrameCache
from bench.data.cache import choose as module
from bench.data.cache.choose import CacheFolders, CacheSettings, choose, estimate
from bench.data.dataset import Video
from bench.errors import UserError
from tests.bench.command import Wording, quotes, quoting
from tests.bench.data.cache.conftest import make_store

FRAME = 48 * 64 * 3
NEED = FRAME * sum(17 + i for i in range(6))  # bytes of the good videos


@pytest.fixture
def folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[CacheFolders]:
    """A machine with 100 MB of free memory, as much of it shared, and 50 MB of free disk."""
    (tmp_path / "shm").mkdir()
    monkeypatch.setattr("bench.data.cache.choose.SHARED_MEMORY", tmp_path / "shm")
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(module.tempfile, "gettempdir", lambda: str(tmp_path / "temporary"))
    monkeypatch.setenv("AIM_BENCH_CACHE", str(tmp_path / "disk"))
    free(monkeypatch)
    with CacheFolders() as claimed:
        yield claimed


def free(monkeypatch: pytest.MonkeyPatch, memory: float = 100e6, shared: float = 100e6, disk: float = 50e6) -> None:
    monkeypatch.setattr(module.psutil, "virtual_memory", lambda: SimpleNamespace(available=memory))

    def usage(folder: Any) -> SimpleNamespace:
        return SimpleNamespace(free=int(shared if "shm" in str(folder) else disk))

    monkeypatch.setattr(module.shutil, "disk_usage", usage)


def listed(videos: tuple[Video, ...]) -> list[Path]:
    return [video.path for video in videos]


def test_the_estimate_is_exact_where_every_video_is_looked_at(mixed: tuple[Video, ...]) -> None:
    found = estimate(listed(mixed))
    # nine files, three of them unreadable; a file that is listed twice counts once
    assert found == estimate(listed(mixed) * 2)
    assert found.videos == 9 and not found.cached
    assert found.total == pytest.approx(NEED / 6 * 9, rel=0.2)


def test_auto_keeps_frames_in_memory_where_they_fit(
    folders: CacheFolders, good: tuple[Video, ...], monkeypatch: pytest.MonkeyPatch, wording: Wording
) -> None:
    cache, note = choose(CacheSettings(), listed(good), folders)
    assert isinstance(cache.store, FolderStore) and cache.store.folder == folders.ram
    assert cache.store.limit_bytes == 25_000_000
    assert quotes(note, folders.ram, "1.1 MB", 6, "25 MB")
    told = [note]
    free(monkeypatch, memory=3.9 * NEED)
    cache, note = choose(CacheSettings(), listed(good), folders)
    assert cache.store is None and quotes(note, "off", "1.1 MB", 6)
    wording([note.replace(str(folders.ram), "RAM") for note in (*told, note)])


def test_without_shared_memory_temporary_files_serve(
    folders: CacheFolders, good: tuple[Video, ...], monkeypatch: pytest.MonkeyPatch, wording: Wording
) -> None:
    def stores(asked: CacheSettings) -> Path | None:
        store = choose(asked, listed(good), folders)[0].store
        assert store is None or store.limit_bytes == 25_000_000
        return None if store is None else store.folder

    free(monkeypatch, shared=NEED / 2)  # as containers have it
    temporary = folders.temporary()
    assert temporary is not None and temporary.stat().st_mode & 0o777 == 0o700
    assert stores(CacheSettings()) == stores(CacheSettings("ram")) == temporary
    folders.ram = None  # another system
    assert stores(CacheSettings("ram")) == temporary
    free(monkeypatch, disk=NEED / 2)
    cache, note = choose(CacheSettings("ram"), listed(good), folders)
    assert cache.store is None and quotes(note, "off", "1.1 MB", 6)
    wording([note])


def test_auto_reads_what_was_prepared_on_the_disk(folders: CacheFolders, good: tuple[Video, ...]) -> None:
    disk = make_store(folders.disk())
    for video in good[1:]:
        FrameCache(disk).open(video.path).close()
    cache, _ = choose(CacheSettings(), listed(good), folders)
    assert isinstance(cache.store, FolderStore) and cache.store.folder == folders.ram
    FrameCache(disk).open(good[0].path).close()
    for once in (False, True):
        cache, _ = choose(CacheSettings(), listed(good), folders, once=once)
        assert isinstance(cache.store, FolderStore) and cache.store.folder == folders.disk()
    assert cache.store.limit_bytes == disk.used_bytes + 10_000_000


def test_videos_that_are_read_once_are_not_decoded_whole(
    folders: CacheFolders, good: tuple[Video, ...], wording: Wording
) -> None:
    cache, note = choose(CacheSettings(), listed(good), folders, once=True)
    assert cache.store is None and quotes(note, "off")
    wording([note])
    assert choose(CacheSettings("ram"), listed(good), folders, once=True)[0].store is not None


def test_what_is_asked_for_is_done(folders: CacheFolders, good: tuple[Video, ...]) -> None:
    assert choose(CacheSettings("off"), listed(good), folders)[0].store is None
    for asked, folder in (
        (CacheSettings("disk", 1234), folders.disk()),
        (CacheSettings("ram", 1234), folders.ram),
        (CacheSettings("auto", 1234, "jpeg"), folders.disk()),
    ):
        store = choose(asked, listed(good), folders)[0].store
        assert isinstance(store, FolderStore)
        assert (store.folder, store.limit_bytes, store.format) == (folder, 1234, asked.format)


def test_a_disk_that_cannot_be_written_is_told(
    folders: CacheFolders, good: tuple[Video, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("AIM_BENCH_CACHE", str(tmp_path / "file"))
    with pytest.raises(UserError, match=quoting("cache is 'disk'", "Not a directory")):
        choose(CacheSettings("disk"), listed(good), folders)
    assert choose(CacheSettings(), listed(good), folders)[0].store is not None  # auto does without
