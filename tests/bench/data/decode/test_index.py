"""The end that a file names, by bytes written by hand from the formats' descriptions."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.data.decode.index import ends_early

SHORT = b"\x00\x00\x00\x0cfree" + b"abcd"
LONG = b"\x00\x00\x00\x01mdat" + (20).to_bytes(8, "big") + b"abcd"
OPEN = b"\x00\x00\x00\x00mdat" + b"abcd"
RIFF = b"RIFF\x04\x00\x00\x00AVI "
ODD = b"RIFF\x05\x00\x00\x00AVI x\x00"
STREAMED = b"RIFF\x00\x00\x00\x00AVI abcd"


@pytest.mark.parametrize("data", [SHORT, SHORT + LONG, SHORT + OPEN, RIFF, ODD, RIFF + ODD, STREAMED])
def test_a_whole_file_ends_where_it_says(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "whole"
    path.write_bytes(data)
    assert not ends_early(path)


@pytest.mark.parametrize("last", [SHORT, LONG, RIFF, ODD])
def test_a_cut_anywhere_in_the_last_box_is_seen(tmp_path: Path, last: bytes) -> None:
    first = RIFF if last.startswith(b"RIFF") else SHORT
    path = tmp_path / "cut"
    for kept in range(1, len(last)):
        path.write_bytes(first + last[:kept])
        assert ends_early(path), kept
