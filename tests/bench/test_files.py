"""Files are written whole or not at all."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from bench.files import did_you_mean_path, why_not_writable, write_atomically, write_text
from tests.bench.command import Wording, quotes


def test_text_is_written_as_it_is(tmp_path: Path) -> None:
    file = tmp_path / "f.txt"
    write_text(file, "± 1\r\n2\n")
    assert file.read_bytes() == "± 1\r\n2\n".encode()
    assert os.listdir(tmp_path) == ["f.txt"]


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
def test_a_failing_writer_leaves_the_old_file_and_nothing_else(tmp_path: Path, error: BaseException) -> None:
    file = tmp_path / "f.txt"
    file.write_text("old")

    def fails(temporary: Path) -> None:
        temporary.write_text("half of the n")
        raise error

    with pytest.raises(type(error)):
        write_atomically(file, fails)
    assert file.read_text() == "old"
    assert os.listdir(tmp_path) == ["f.txt"]


def test_a_folder_that_is_not_there_is_an_error_that_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_text(tmp_path / "nosuch" / "f.txt", "x")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError):
        write_text(tmp_path / "folder", "x")
    assert os.listdir(tmp_path) == ["folder"]


def test_a_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    file = tmp_path / "f.txt"
    texts = ["a" * 300_000, "b" * 200_000]
    write_text(file, texts[0])
    seen: set[str] = set()
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            seen.add(file.read_text())

    reader = threading.Thread(target=read)
    reader.start()
    for index in range(60):
        write_text(file, texts[index % 2])
    stop.set()
    reader.join()
    assert seen <= set(texts)
    assert seen


def test_two_processes_that_write_one_file_leave_one_of_their_texts(tmp_path: Path) -> None:
    file = tmp_path / "f.txt"
    code = (
        "import sys; from pathlib import Path; from bench.files import write_text\n"
        "for _ in range(50): write_text(Path(sys.argv[1]), sys.argv[2] * 50000)"
    )
    processes = [subprocess.Popen([sys.executable, "-c", code, str(file), letter]) for letter in "ab"]
    assert [process.wait(600) for process in processes] == [0, 0]
    assert file.read_text() in ("a" * 50_000, "b" * 50_000)
    assert os.listdir(tmp_path) == ["f.txt"]


def test_a_written_file_has_the_mode_of_any_other(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "f.txt", "x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "f.txt").stat().st_mode) == 0o640


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("old")
    (tmp_path / "link").symlink_to("target")
    write_text(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_text() == "new"


def test_writable_folders_and_those_that_could_be_made(tmp_path: Path) -> None:
    assert why_not_writable(tmp_path) is None
    assert why_not_writable(tmp_path / "a" / "b" / "c") is None
    assert os.listdir(tmp_path) == []


def test_folders_that_cannot_be_written_say_why(tmp_path: Path, wording: Wording) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "nowhere").symlink_to("nosuch")
    for folder, culprit in (("file", "file"), ("file/a/b", "file"), ("nowhere", "nowhere")):
        reason = why_not_writable(tmp_path / folder)
        assert quotes(reason, tmp_path / culprit)
        wording([reason])
    assert why_not_writable(tmp_path / ("x" * 300)) == "File name too long"


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_a_folder_that_even_root_cannot_write_to() -> None:
    reason = why_not_writable(Path("/proc/nosuch/run"))
    assert quotes(reason, "/proc")


def test_the_nearest_name_beside_a_missing_one(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    (tmp_path / "lists").mkdir()
    assert quotes(did_you_mean_path(tmp_path / "vidoes"), f"'{tmp_path}/videos'")
    assert did_you_mean_path(tmp_path / "zzz") == ""
    assert did_you_mean_path(tmp_path / "nosuch" / "videos") == ""
