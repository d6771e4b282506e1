"""Every format in which lists of videos come, told from the whole file."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.data.annotations import read_class_names
from bench.data.dataset import DataError
from bench.data.lists import read_entries
from tests.bench.command import Wording, quoting


def entries(folder: Path, text: str) -> list[tuple[str, int | str, int | None]]:
    file = folder / "list.txt"
    file.write_text(text, encoding="utf-8")
    return [(entry.name, entry.label, entry.frames) for entry in read_entries(file)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a b/c d.mp4 3\n\ne.webm 12\n", [("a b/c d.mp4", 3, None), ("e.webm", 12, None)]),
        ("a b/c d.mp4,3\ne,f.webm,12\n", [("a b/c d.mp4", 3, None), ("e,f.webm", 12, None)]),
        ('"a,b.mp4",3\nc.mp4,12\n', [("a,b.mp4", 3, None), ("c.mp4", 12, None)]),
        ("a b/c d.mp4\t3\ne.webm\t12\n", [("a b/c d.mp4", 3, None), ("e.webm", 12, None)]),
        ("\ufeffa.mp4 3\r\nb.mp4 1\r\n", [("a.mp4", 3, None), ("b.mp4", 1, None)]),
        # folders of frames
        ("a b/c 120 3\nd/ 7 1\n", [("a b/c", 3, 120), ("d", 1, 7)]),
        ("a b/c,120,3\nd,7,1\n", [("a b/c", 3, 120), ("d", 1, 7)]),
        ("a b/c\t120\t3\nd\t7\t1\n", [("a b/c", 3, 120), ("d", 1, 7)]),
        ("a b.mp4 120 3\nc.mp4 7 1\n", [("a b.mp4", 3, 120), ("c.mp4", 1, 7)]),
        # a path whose last word is a number is not a folder of frames
        ("video 12 3\nb.mp4 4\nc.mp4 4\n", [("video 12", 3, None), ("b.mp4", 4, None), ("c.mp4", 4, None)]),
        ("a 12.mp4 3\nb 7.mp4 4\n", [("a 12.mp4", 3, None), ("b 7.mp4", 4, None)]),
        # names as labels
        ("a.mp4,playing harp\nb.mp4,class 7\n", [("a.mp4", "playing harp", None), ("b.mp4", "class 7", None)]),
        ("a.mp4\tplaying harp\nb.mp4\tclass 7\n", [("a.mp4", "playing harp", None), ("b.mp4", "class 7", None)]),
        # columns by name, in any order
        ("path,label\na.mp4,3\nb.mp4,4\n", [("a.mp4", 3, None), ("b.mp4", 4, None)]),
        ("Label,Video Path,num_frames\n3,a,100\n4,b,7\n", [("a", 3, 100), ("b", 4, 7)]),
        ("id\tclass\tfile\n0\tjump\ta.mp4\n1\trun\tb.mp4\n", [("a.mp4", "jump", None), ("b.mp4", "run", None)]),
    ],
)
def test_each_format_is_read(tmp_path: Path, text: str, expected: list[object]) -> None:
    assert entries(tmp_path, text) == expected


@pytest.mark.parametrize(
    ("text", "where", "quoted"),
    [
        ("a.mp4,0\nb.mp4,-1\nc.mp4,1\n", "line 2", ("'-1'", 0)),
        ("a.mp4,0\nb.mp4\nc.mp4,1\n", "line 2", ("'relative/path.mp4,label'",)),
        ("a.mp4\t0\nb.mp4\t1.5\nc.mp4\t1\n", "line 2", ("'1.5'", 0)),
        ("a 9 0\n\nb 1\nc 9 1\n", "line 3", ("'path frames label'",)),
        ("path,frames,label\na,9,0\nb,x,1\n", "line 3", ("'x'",)),
        ("path,frames,label\na,9,0\nb,1\n", "line 3", (2, 3)),
        ("a.mp4 0\nb c.mp4\nd.mp4 1\n", "line 2", ()),
        ("a.mp4,run\nb.mp4,\nc.mp4,jump\n", "line 2", ()),
    ],
)
def test_a_line_that_does_not_follow_the_files_format_is_named(
    tmp_path: Path, wording: Wording, text: str, where: str, quoted: tuple[object, ...]
) -> None:
    with pytest.raises(DataError, match=quoting(tmp_path / "list.txt", "1 line", f"{where}: ", *quoted)) as caught:
        entries(tmp_path, text)
    wording([caught.value])


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("a.txt", "playing harp\nrun\n\n", ("playing harp", "run")),
        ("a.csv", '"jump, high"\n"the best" run\n', ("jump, high", '"the best" run')),
        ("a.txt", "1 Apply\n2 Basket Ball\n", ("Apply", "Basket Ball")),
        ("a.txt", "1\trun\n0\twalk\n", ("walk", "run")),
        ("a.csv", "id,name\n0,walk\n1,run\n", ("walk", "run")),
        ("a.txt", "1 on 1\n2 on 2\n3 men\n5 men\n", ("1 on 1", "2 on 2", "3 men", "5 men")),
        ("a.json", '["walk", "run"]', ("walk", "run")),
        ("a.json", '[["Back", "15som"], ["Inward", "Dive"]]', ("Back+15som", "Inward+Dive")),
        ("a.json", '{"run": "1", "walk": "0"}', ("walk", "run")),
        ("a.json", '{"1": "run", "0": "walk"}', ("walk", "run")),
    ],
)
def test_class_names_are_read(tmp_path: Path, name: str, text: str, expected: tuple[str, ...]) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert read_class_names(tmp_path / name) == expected


@pytest.mark.parametrize(
    ("name", "text", "quoted"),
    [
        ("a.txt", "\n", ()),
        ("a.txt", "run\nwalk\nrun\n", ("run",)),
        ("a.json", '{"run": 0, "walk": 2}', ("JSON",)),
        ("a.json", "[1, 2]", ("JSON",)),
        ("a.json", "{", ("JSON", "line 1")),
    ],
)
def test_what_is_no_file_of_class_names_is_told(
    tmp_path: Path, wording: Wording, name: str, text: str, quoted: tuple[str, ...]
) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=quoting(tmp_path / name, *quoted)) as caught:
        read_class_names(tmp_path / name)
    wording([caught.value])
