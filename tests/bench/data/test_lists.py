from __future__ import annotations

from pathlib import Path

import pytest

from bench.data.dataset import DataError, Video
from bench.data.lists import read_list, write_list
from tests.bench.command import Wording, quotes, quoting

ROOT = Path("/data/videos")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "train_list.txt"


def test_reads_paths_with_spaces_and_skips_blank_lines(file: Path) -> None:
    file.write_text("a/b.mp4 0\n\n  \nplaying the harp/x y 1.mp4 12\r\nc.webm\t3\n", encoding="utf-8")
    assert read_list(file, ROOT, 13) == (
        Video(ROOT / "a/b.mp4", 0, "a/b.mp4"),
        Video(ROOT / "playing the harp/x y 1.mp4", 12, "playing the harp/x y 1.mp4"),
        Video(ROOT / "c.webm", 3, "c.webm"),
    )


def test_written_lists_read_back(file: Path) -> None:
    videos = tuple(Video(ROOT / name, i, name) for i, name in enumerate(["a b/ü.mp4", "c.mp4"]))
    write_list(file, videos)
    assert file.read_bytes() == "a b/ü.mp4 0\nc.mp4 1\n".encode()
    assert read_list(file, ROOT, None) == videos


@pytest.mark.parametrize("name", ["", " a.mp4", "a.mp4 ", "a\nb.mp4"])
def test_a_name_that_a_line_cannot_hold_is_not_written(file: Path, name: str) -> None:
    with pytest.raises(ValueError, match=quoting(repr(name))):
        write_list(file, [Video(ROOT / "x", 0, name)])
    assert not file.exists()


@pytest.mark.parametrize(
    ("line", "quoted"),
    [
        ("alone.mp4", ("'relative/path.mp4 label'",)),
        ("a.mp4 one", ("'one'", 0)),
        ("a.mp4 -1", ("'-1'", 0)),
        ("a.mp4 1.0", ("'1.0'", 0)),
        ("a.mp4,1", ("'relative/path.mp4 label'",)),
        ("a.mp4 1_0", ("'1_0'", 0)),
        ("a.mp4 5", (5, 0, 4)),
        ("good.mp4 2", ("line 1",)),
    ],
)
def test_a_bad_line_is_named(file: Path, wording: Wording, line: str, quoted: tuple[object, ...]) -> None:
    file.write_text(f"good.mp4 1\n\n{line}\n", encoding="utf-8")
    with pytest.raises(DataError, match=quoting(file, "1 line", "line 3", repr(line), *quoted)) as caught:
        read_list(file, ROOT, 5)
    wording([caught.value])


def test_all_bad_lines_are_counted_and_five_shown(file: Path) -> None:
    file.write_text("".join(f"video{i}.mp4 x\n" for i in range(12)), encoding="utf-8")
    with pytest.raises(DataError) as caught:
        read_list(file, ROOT, 5)
    message = str(caught.value)
    assert quotes(message, 12, 7)
    assert "video4.mp4" in message and "video5.mp4" not in message


def test_any_label_goes_where_the_classes_are_not_known(file: Path) -> None:
    file.write_text("a.mp4 98765\n", encoding="utf-8")
    assert read_list(file, ROOT, None)[0].label == 98765


@pytest.mark.parametrize("text", ["", "\n \n"])
def test_an_empty_list_is_refused(file: Path, wording: Wording, text: str) -> None:
    file.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=quoting(file)) as caught:
        read_list(file, ROOT, 5)
    wording([caught.value])


def test_a_list_that_cannot_be_read_is_named(file: Path, wording: Wording) -> None:
    with pytest.raises(DataError, match=quoting(file)) as missing:
        read_list(file, ROOT, 5)
    file.write_bytes(b"\xff\xfe\x00 1\n")
    with pytest.raises(DataError, match=quoting(file)) as no_text:
        read_list(file, ROOT, 5)
    wording([missing.value, no_text.value])
