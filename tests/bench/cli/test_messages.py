"""Messages of all verbs: the same lines in a terminal, a pipe and a log, whatever a file has put into them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from bench.cli.check import _csv
from bench.cli.output import print_table, tell
from bench.data.dataset import Video
from bench.data.validate import VideoFault
from bench.errors import UserError
from tests.bench.command import Command, quotes

ROOT = Path(__file__).parents[3]


@pytest.fixture
def lists(tmp_path: Path) -> tuple[str, ...]:
    """A training list with eight bad lines, in one of which stands what clears a terminal."""
    (tmp_path / "train.txt").write_text("a.mp4 0\n" + "".join(f"b\x1b[2J{i}.mp4 -{i}\n" for i in range(1, 9)))
    (tmp_path / "val.txt").write_text("c.mp4 0\n")
    return ("--data-root", str(tmp_path), "--train-list", f"{tmp_path}/train.txt", "--val-list", f"{tmp_path}/val.txt")


def test_a_message_of_several_lines_keeps_them() -> None:
    error = UserError(["one:\n  a\n  b", "two", "one:\n  a\n  b"])
    assert error.problems == ("one:\n  a\n  b", "two")
    assert str(error) == "one:\n  a\n  b\ntwo"
    assert UserError(["one:\r\n\n  a \n"]).problems == ("one:\n  a",)


def test_a_value_is_quoted_where_it_is_a_word_of_its_own_and_in_its_place() -> None:
    """Or tests of messages could not fail."""
    message = "frames is 5: vit:tiny takes multiples of 1.5, expected 'ViT-B-16'\nor -1"
    assert quotes(message, "frames is 5", "vit:tiny", 1.5, "'ViT-B-16'", -1) and quotes(message)
    for values in ((15,), ("frames", 1), ("tin",), (1.5, "vit:tiny"), (5, 5), ("'ViT-B-1'",), (0,)):
        assert not quotes(message, *values), values


def test_a_long_list_is_cut_by_its_lines_and_says_so() -> None:
    (few,) = UserError(["few:\n" + "\n".join(f"  {index}" for index in range(19))]).problems
    assert few.count("\n") == 19
    (many,) = UserError(["many:\n" + "\n".join(f"  {index}" for index in range(1000))]).problems
    assert len(many.split("\n")) == 20 and many.endswith("\n  17\n  and 982 more lines")
    (long,) = UserError(["long:\n" + "\n".join(f"  {'x' * 5000} {index}" for index in range(6))]).problems
    first, *details = long.split("\n")
    assert first == "long:" and len(details) == 6 and len(long) <= 2000
    assert all(line.endswith(f"x {index}") and " (shortened) " in line for index, line in enumerate(details))


def test_a_list_that_cannot_be_used_is_told_line_by_line(bench: Command, lists: tuple[str, ...]) -> None:
    for verb in (("data", "check"), ("data", "prepare"), ("data", "show")):
        said = bench(*verb, "list", *lists)
        assert (said.code, said.out) == (2, "")
        headline, bullet, *details = said.err.splitlines()
        assert headline == "bench: 1 problem; nothing was run or changed."
        assert bullet.startswith("  - ") and bullet.endswith(":")
        assert all(line.startswith("      ") for line in details) and len(details) == 7
        assert re.match(r" {6}line 2: .*b\\x1b\[2J1\.mp4", details[0])
        assert "\\n" not in said.err and "\x1b" not in said.err


def read_from_terminal(command: list[str], environment: dict[str, str]) -> str:
    """Return the text that a command writes where its output is a terminal, without colours."""
    import pty

    ours, theirs = pty.openpty()
    process = subprocess.Popen(command, stdout=theirs, stderr=theirs, stdin=theirs, env=environment, cwd=ROOT)
    os.close(theirs)
    written = b""
    try:
        while part := os.read(ours, 65536):
            written += part
    except OSError:  # how Linux tells the end
        pass
    process.wait(600)
    os.close(ours)
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written.decode()).replace("\r", "")


@pytest.mark.skipif(sys.platform == "win32", reason="it has no pseudo-terminals")
def test_a_terminal_and_a_pipe_show_the_same_lines(lists: tuple[str, ...]) -> None:
    command = [sys.executable, "-W", "ignore", "-m", "bench.cli.main", "data", "check", "list", *lists]
    environment = {**os.environ, "COLUMNS": "60", "TERM": "xterm"}
    piped = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert piped.stderr.count("\n") == 9
    shown = read_from_terminal(command, environment)
    assert shown.endswith(piped.stderr)  # a bar came before, and was taken away


def test_a_message_is_neither_broken_nor_read_as_markup(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    text = f"[red]{'long ' * 50}[/red] :car: \x07"
    tell(text, err=True, style="red")
    print_table("[b]a[/b] :car:", "x" * 900)
    out, err = capsys.readouterr()
    assert err == text.replace("\x07", "\\x07") + "\n"
    assert out == "[b]a[/b] :car:\n" + "x" * 900 + "\n"


def test_what_a_check_finds_is_harmless_and_its_csv_has_a_row_each(bench: Command, tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.mp4").write_bytes(b"no video")
    (tmp_path / "train.txt").write_text("a.mp4 0\nb.mp4 1\ngone\x1b[2J.mp4 1\n")
    (tmp_path / "val.txt").write_text("c.mp4 1\n")
    files = ("--data-root", tmp_path, "--train-list", tmp_path / "train.txt", "--val-list", tmp_path / "val.txt")
    said = bench("data", "check", "list", *files, "--workers", 1, "--output", tmp_path / "o.csv")
    assert said.code == 1
    assert "gone\\x1b[2J.mp4" in said.out and "\x1b" not in said.out + said.err
    assert (
        said.out.splitlines()[-1]
        == "list train, val, test: 4 videos, 1 missing, 3 broken, classes without a training video"
    )
    assert len((tmp_path / "o.csv").read_text().splitlines()) == 1 + 4 + 2  # two sentences on classes
    finding = VideoFault("val", Video(tmp_path / "c.mp4", 0, "c.mp4"), "broken", "one\x1b[2J\ntwo")
    assert len(_csv([finding], []).splitlines()) == 2 and "one\\x1b[2J two" in _csv([finding], [])
