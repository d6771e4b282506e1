from __future__ import annotations

import os
from pathlib import Path

import pytest

from bench.data.cache import FrameCache
from bench.data.cache import choose as module
from bench.data.cache.choose import CacheFolders, disk_folder, own_folder
from bench.data.dataset import Video
from tests.bench.data.cache.conftest import files, make_store
from tests.bench.data.cache.processes import SPAWN, hold

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="shared memory as a file system is Linux's")


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither the user's memory nor the user's disk."""
    (tmp_path / "shm").mkdir()
    monkeypatch.setattr(module, "SHARED_MEMORY", tmp_path / "shm")
    monkeypatch.setenv("AIM_BENCH_CACHE", str(tmp_path / "disk"))


def fill(folder: Path | None, video: Video) -> None:
    assert folder is not None
    FrameCache(make_store(folder)).open(video.path).close()


def test_memory_is_given_back_with_the_last_run(good: tuple[Video, ...]) -> None:
    folder = own_folder(module.SHARED_MEMORY)
    assert folder is not None and folder.stat().st_mode & 0o777 == 0o700
    with CacheFolders() as folders:
        assert folders.ram == folder
        fill(folder, good[0])
        with CacheFolders():  # a run that ends before
            pass
        assert len(files(make_store(folder))) == 1
    assert [path.name for path in folder.rglob("*") if not path.is_dir()] == [".in-use"]


def test_temporary_files_are_removed_with_the_last_run(
    good: tuple[Video, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.tempfile, "gettempdir", lambda: str(tmp_path))
    with CacheFolders() as folders:
        assert not (tmp_path / f"aim-bench-{os.getuid()}").exists()  # where nobody asks
        temporary = folders.temporary()
        assert temporary is not None and temporary == folders.temporary()
        fill(temporary, good[0])
        with CacheFolders() as other:
            other.temporary()
        assert len(files(make_store(temporary))) == 1
    assert [path.name for path in temporary.rglob("*") if not path.is_dir()] == [".in-use"]


def test_what_a_dead_run_left_in_memory_goes_with_the_next(good: tuple[Video, ...], tmp_path: Path) -> None:
    ready, end = SPAWN.Event(), SPAWN.Event()
    process = SPAWN.Process(target=hold, args=(tmp_path / "shm", good[0].path, ready, end))
    process.start()
    assert ready.wait(600)
    folder = own_folder(module.SHARED_MEMORY)
    assert folder is not None
    with CacheFolders():
        assert len(files(make_store(folder))) == 1  # another run's, which lives
    process.kill()
    process.join()
    assert len(files(make_store(folder))) == 1
    with CacheFolders():
        assert not files(make_store(folder))


@pytest.mark.parametrize("stranger", ["link", "open to others", "file"])
def test_a_folder_in_memory_that_others_could_have_made_is_not_used(stranger: str, tmp_path: Path) -> None:
    place = tmp_path / "shm" / f"aim-bench-{os.getuid()}"
    if stranger == "link":
        (tmp_path / "theirs").mkdir(mode=0o700)
        place.symlink_to(tmp_path / "theirs")
    elif stranger == "file":
        place.touch()
    else:
        place.mkdir()
        place.chmod(0o777)
    assert own_folder(module.SHARED_MEMORY) is None
    with CacheFolders() as folders:
        assert folders.ram is None


def test_the_disk_keeps_entries_and_loses_what_was_half_written(good: tuple[Video, ...]) -> None:
    with CacheFolders() as folders:
        assert folders.disk() == disk_folder() == folders.disk()
        fill(folders.disk(), good[0])
        (disk_folder() / "tmp" / "half").write_bytes(bytes(100))
        with CacheFolders() as other:
            other.disk()
            assert (disk_folder() / "tmp" / "half").exists()  # its writer may live
    with CacheFolders() as folders:
        assert list((folders.disk() / "tmp").iterdir()) == []
        store = make_store(folders.disk())
        assert len(files(store)) == 1 and store.used_bytes == files(store)[0].stat().st_size
