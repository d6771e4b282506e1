"""From what a user names to a checkpoint's file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bench.errors import UserError
from bench.run.model_files.base import find
from tests.bench.command import Wording, quotes, quoting


def test_a_checkpoint_is_found_by_file_folder_cell_and_key(tmp_path: Path, wording: Wording) -> None:
    cells = tmp_path / "results" / "run" / "cells"
    for name in ("vit-joint-0123456789", "vit-spatial-abcdefabcd", "broken-1111111111"):
        (cells / name).mkdir(parents=True)
    file = cells / "vit-joint-0123456789" / "adapter.safetensors"
    file.touch()
    (cells / "vit-spatial-abcdefabcd" / "adapter.safetensors").touch()
    root = tmp_path / "results"
    for text in (
        str(file),
        str(file.parent),
        "run/vit-joint-0123456789",
        "run/0123456789",
        f"{root}/run/0123456789",
        f"{root}/run/vit-joint-0123456789",
    ):
        assert find(text, root) == file, text

    def told(text: str) -> str:
        with pytest.raises(UserError) as refused:
            find(text, root)
        return str(refused.value)

    assert quotes(told("run"), "'run'", "RUN/CELL", "broken-1111111111, vit-joint-0123456789")
    assert quotes(told("run/vit-jiont-0123456789"), "'run/vit-jiont-0123456789'", "'vit-joint-0123456789'")
    (tmp_path / "one.txt").touch()
    assert quotes(told(str(tmp_path / "one.txt")), f"'{tmp_path}/one.txt'", ".safetensors, .pt")
    (tmp_path / "one.pth").touch()
    assert quotes(told(str(tmp_path / "onee.pth")), f"'{tmp_path}/onee.pth'", f"'{tmp_path}/one.pth'")
    for name in ("run/23456789", "run/1111111111", "nosuch.pth"):  # no such cell, one that did not end, no such file
        assert quotes(told(name), f"'{name}'")
        wording([told(name)])


def test_a_run_beside_the_user_comes_before_one_of_that_name_among_the_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for run in ("run", "results/run"):
        cell = Path(run) / "cells" / "vit-joint-0123456789"
        cell.mkdir(parents=True)
        (cell / "adapter.safetensors").touch()
    assert find("run/0123456789") == Path("run/cells/vit-joint-0123456789/adapter.safetensors")


def test_a_home_folder_is_filled_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "one.pth").touch()
    assert find("~/one.pth") == tmp_path / "one.pth"


@pytest.mark.parametrize("kind", ["folder", "pipe", "loop", "device"])
def test_what_is_no_file_is_told_and_not_opened(kind: str, tmp_path: Path, wording: Wording) -> None:
    place = tmp_path / "one.pth"
    {
        "folder": place.mkdir,
        "pipe": lambda: os.mkfifo(place),
        "loop": lambda: place.symlink_to(place),
        "device": lambda: place.symlink_to("/dev/zero"),
    }[kind]()
    with pytest.raises(UserError, match=quoting(f"'{place}'")) as refused:
        find(str(place))
    wording([refused.value])
