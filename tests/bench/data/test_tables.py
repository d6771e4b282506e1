"""Lists as CSV and TSV files, as spreadsheets, pandas and people write them."""

from __future__ import annotations

import csv
import random
import re
from pathlib import Path

import pandas as pd
import pytest

from bench.data.dataset import DataError
from bench.data.lists import read_entries
from tests.bench.command import Wording, quoting


def entries(folder: Path, text: str | bytes, name: str = "list.csv") -> list[tuple[str, int | str, int | None]]:
    file = folder / name
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return [(entry.name, entry.label, entry.frames) for entry in read_entries(file)]


def pairs(found: list[tuple[str, int | str, int | None]]) -> list[tuple[str, int | str]]:
    return [(name, label) for name, label, _ in found]


RUN_AND_JUMP = [("a b.mp4", "run fast"), ("c,d.mp4", "jump, high")]
NUMBERS = [("a.mp4", 1), ("b.mp4", 0)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # a header, in any order, with columns that mean nothing
        ('path,label\na b.mp4,run fast\n"c,d.mp4","jump, high"\n', RUN_AND_JUMP),
        ('label,note,File Name,id\n"run fast",x,a b.mp4,7\n"jump, high",,"c,d.mp4",8\n', RUN_AND_JUMP),
        ('id,video,class-name,note\n0,a b.mp4,run fast,"on two\nlines"\n1,"c,d.mp4","jump, high",\n', RUN_AND_JUMP),
        (",filename,class\n0,a.mp4,1\n1,b.mp4,0\n", NUMBERS),
        # without one
        ('"a b.mp4",run fast\n"c,d.mp4","jump, high"\n', RUN_AND_JUMP),
        ("a b.mp4,run fast\nc,d.mp4,jump\n", [("a b.mp4", "run fast"), ("c,d.mp4", "jump")]),
        ("v1,run fast\nv2,class 7\n", [("v1", "run fast"), ("v2", "class 7")]),
        # numbers
        ("a.mp4, 1\nb.mp4, 0\n", NUMBERS),
        ("file,class\na.mp4,1.0\nb.mp4,0.0\n", NUMBERS),
        ("path,label\na.mp4,1.\nb.mp4,0\n", NUMBERS),
        # where there are names too, in whatever columns, the numbers
        ("path,class_name,label_id\na.mp4,run,1\nb.mp4,jump,0\n", NUMBERS),
        ("path,label,class_id\na.mp4,run,1\nb.mp4,jump,0\n", NUMBERS),
        ("path,class,label\na.mp4,run,1.0\nb.mp4,jump,0.0\n", NUMBERS),
        ("path,label,label_id\na.mp4,1,5\nb.mp4,0,6\n", NUMBERS),
        # Excel's: a byte order mark, \r\n, semicolons, decimal commas, columns and rows without content
        ("\ufeffpath,label\r\na.mp4,1\r\nb.mp4,0\r\n", NUMBERS),
        ("path;label\na.mp4;1,0\nb.mp4;0,0\n", NUMBERS),
        ("a.mp4;1\nb.mp4;0\n", NUMBERS),
        ("a,b.mp4;1\nc,d.mp4;0\n", [("a,b.mp4", 1), ("c,d.mp4", 0)]),
        ("a.mp4;jump, high\nb.mp4;run, fast\n", [("a.mp4", "jump, high"), ("b.mp4", "run, fast")]),
        ("sep=;\na.mp4;1\nb.mp4;0\n", NUMBERS),
        ("sep=,\nv1,run;fast\nv2,jump;high\n", [("v1", "run;fast"), ("v2", "jump;high")]),
        ("sep=;\npath;label\na.mp4;1,0\nb.mp4;0,0\n", NUMBERS),
        ("v;a,1\nv;b,0\n", [("v;a", 1), ("v;b", 0)]),
        ("a.mp4,1,,\nb.mp4,0,,\n,,,\n\n", NUMBERS),
        ("path,label,note\na.mp4,1\nb.mp4,0,,,\n", NUMBERS),
        # tabs and spaces in a .csv
        ("a.mp4\t1\nb.mp4\t0\n", NUMBERS),
        ("a.mp4 1\nb.mp4 0\n", NUMBERS),
        ("x, y/a.mp4 1\nx, y/b.mp4 0\n", [("x, y/a.mp4", 1), ("x, y/b.mp4", 0)]),
    ],
)
def test_a_table_is_read(tmp_path: Path, text: str, expected: list[tuple[str, int | str]]) -> None:
    assert pairs(entries(tmp_path, text)) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('path\tlabel\n"a\tb.mp4"\trun, fast\nc.mp4\tjump;high\n', [("a\tb.mp4", "run, fast"), ("c.mp4", "jump;high")]),
        ("a.mp4\trun, fast\nc d.mp4\tjump\n", [("a.mp4", "run, fast"), ("c d.mp4", "jump")]),
        ("a.mp4,1\nb.mp4,0\n", NUMBERS),
    ],
)
def test_a_tsv_is_read(tmp_path: Path, text: str, expected: list[tuple[str, int | str]]) -> None:
    assert pairs(entries(tmp_path, text, "list.TSV")) == expected


def test_what_is_evidently_a_table_is_read_as_one_whatever_its_suffix(tmp_path: Path) -> None:
    quoted = '"a b.mp4","run fast"\n"c,d.mp4","jump, high"\n'
    for text in (quoted, "path,label\n" + quoted, "path;label\n" + quoted.replace('","', '";"')):
        assert pairs(entries(tmp_path, text, "list.txt")) == RUN_AND_JUMP
    # paths with a comma want quotes in a .csv alone
    assert pairs(entries(tmp_path, "a,b,1\nc,0\nd,2\n", "list.txt")) == [("a,b", 1), ("c", 0), ("d", 2)]
    assert pairs(entries(tmp_path, "v1\trun fast\nv2\tjump\n", "list.txt")) == [("v1", "run fast"), ("v2", "jump")]
    # and lines of `path label` stay what they are
    spaced = "a.mp4     0\nb, c.mp4\t1\nrun, 2/d.mp4 2\n"
    assert pairs(entries(tmp_path, spaced, "list.txt")) == [("a.mp4", 0), ("b, c.mp4", 1), ("run, 2/d.mp4", 2)]


def test_numbers_of_frames_are_read(tmp_path: Path) -> None:
    assert entries(tmp_path, "a/b,120,3\nc\\d/,7,1\n") == [("a/b", 3, 120), ("c/d", 1, 7)]
    assert entries(tmp_path, "n_frames,label,path\n120.0,3,a\n,1,b\n") == [("a", 3, 120), ("b", 1, None)]


@pytest.mark.parametrize("sign", [",", ";", "\t"])
def test_what_pandas_writes_is_read_back(tmp_path: Path, sign: str) -> None:
    random.seed(0)
    words = ["run", "jump, high", 'the "best"', "a;b", "tab\there", " x", "ü", "it's", "7", "sep=;"]
    paths = [f"{random.choice(words).strip()}/{random.choice(words)}{i}.mp4" for i in range(200)]
    labels = [random.choice(words[:-2]) for _ in paths]
    table = pd.DataFrame({"note": random.choices(words, k=200), "class": labels, "video": paths})
    for style in (csv.QUOTE_MINIMAL, csv.QUOTE_ALL):
        table.to_csv(tmp_path / "list.csv", sep=sign, index=False, quoting=style)
        found = pairs(entries(tmp_path, (tmp_path / "list.csv").read_bytes()))
        assert found == list(zip(paths, map(str.strip, labels), strict=True))


@pytest.mark.parametrize(
    ("text", "lines", "quoted"),
    [
        # quotes
        ('path,label\n"a.mp4,0\nb.mp4,1\n"c.mp4,0\n', [2, 4], ()),
        ('path,label\na.mp4,0\n"b.mp4,1\n', [3], ()),
        ('path,label\n"a" b.mp4,0\nb.mp4,1\n', [2], ()),
        ('a.mp4,"run\nfast"\nb.mp4,jump\n', [1], ()),
        (f'path,label\n"{"x" * 140_000}",0\n', [2], ("131,072",)),
        ('path,label,note\na.mp4,0,"on two\nlines"\nb.mp4,,x\n', [4], ()),
        # ragged rows
        ("path,label,note\na.mp4,0,x\nb.mp4\nc,d.mp4,1,y\n", [3, 4], ("line 3", 1, 3, "line 4", 4, 3)),
        ("a.mp4,run\nb.mp4,jump, high\n", [2], (3, "'relative/path.mp4,label'")),
        ("a.mp4,0,run\nb.mp4,1,jump\n", [1, 2], (3,)),
        ("a,9,0\nb,0\nc,9,1\n", [2], ("'path,frames,label'",)),
        # fields
        ("a.mp4,0\nb.mp4,\n,1\nd.mp4,2\n", [2], ()),
        ("path,label\na.mp4,0\n,1\n", [3], ()),
        ("path,label\na.mp4,0.5\nb.mp4,1.0\n", [2], ("'0.5'",)),
        ("path,label\na.mp4,-1\nb.mp4,-1\n", [2, 3], ("'-1'", "'-1'")),
        ("path,label\na.mp4,0\nb.mp4,run\nc.mp4,1\n", [3], ("'run'",)),
        ("path,label\na.mp4,1,0\nb.mp4,1\nc.mp4,2\n", [2], (3,)),
        ("path,label,frames\na,1,x\nb,0,7\n", [2], ("'x'",)),
        ("0,a.mp4\n1,b.mp4\n", [1, 2], ("'a.mp4'", "'b.mp4'")),
        (f"path,label\na.mp4,{'1' * 5000}\nb.mp4,1\n", [2], ()),
    ],
)
def test_rows_that_cannot_be_used_are_all_named(
    tmp_path: Path, wording: Wording, text: str, lines: list[int], quoted: tuple[object, ...]
) -> None:
    with pytest.raises(DataError, match=quoting(*quoted)) as caught:
        entries(tmp_path, text)
    message = str(caught.value)
    wording([message])
    wrong = [int(number) for number in re.findall(r"line (\d+): ", message)]
    assert set(lines) <= set(wrong) and len(wrong) <= 2


@pytest.mark.parametrize(
    ("text", "quoted"),
    [
        ("", ()),
        ("\n ,\n", ()),
        ("\ufeffpath,label\n", ("path, label",)),
        ("path,label,Label\na.mp4,0,1\n", ("'label'",)),
        ("path,label,File,PATH\na.mp4,0,1,2\n", ("'path'",)),
        ("path,split\na.mp4,train\n", ("path, split", "label")),
        ("label,youtube_id\nrun,abc\n", ("label, youtube_id", "path", "file")),
        ("clip,lable\na.mp4,0\nb.mp4,1\n", ("clip, lable", "'label'")),
        ("path\na.mp4\nb c.mp4\n", ()),
        ("a.mp4\nb c.mp4\n", ()),
        ("path,label\na.mp4,0\nb\xe9.mp4,1\n".encode("latin-1"), ("line 3", "UTF-8", "0xe9")),
        ("path,label\na.mp4,0\n".encode("utf-16"), ("UTF-16",)),
        (b"PK\x03\x04\x14\x00", ()),
    ],
)
def test_files_that_are_no_list_are_told_by_what_they_are(
    tmp_path: Path, wording: Wording, text: str | bytes, quoted: tuple[str, ...]
) -> None:
    with pytest.raises(DataError, match=quoting(tmp_path / "list.csv", *quoted)) as caught:
        entries(tmp_path, text)
    wording([caught.value])


def test_names_and_headers_between_spaces_are_told_apart_from_wrong_numbers(tmp_path: Path, wording: Wording) -> None:
    for text in ("a.mp4 run fast\nb.mp4 jump\n", "path label\na.mp4 0\nb.mp4 1\n", "a.mp4 x\nb.mp4 1\nc.mp4 0\n"):
        with pytest.raises(DataError) as caught:
            entries(tmp_path, text, "list.txt")
        wording([caught.value])


def test_labels_from_1_refuse_a_label_0_by_its_line(tmp_path: Path) -> None:
    file = tmp_path / "list.csv"
    file.write_text("path,label\na.mp4,1\nb.mp4,0\nc.mp4,2\n")
    with pytest.raises(DataError, match=quoting(1, "line 3", "'b.mp4,0'", 0, 1)):
        read_entries(file, labels_from=1)
    file.write_text("path,label\na.mp4,run\n")
    with pytest.raises(DataError, match=quoting("labels_from is 1", "'run'")):
        read_entries(file, labels_from=1)
    file.write_text("path,label\na.mp4,1\n")
    assert [entry.label for entry in read_entries(file, labels_from=1)] == [1]
