"""From what a user names to a checkpoint's file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bench.errors import UserError
from bench.run.model_files.base import find


def test_a_checkpoint_is_found_by_file_folder_cell_and_key(tmp_path: Path) -> None:
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

    assert "is a run: expected RUN/CELL, with one of its cells: broken-1111111111, vit-joint" in told("run")
    assert "did you mean 'vit-joint-0123456789'?" in told("run/vit-jiont-0123456789")
    assert "the run has no such cell" in told("run/23456789")
    assert "did not come to its end" in told("run/1111111111")
    assert "there is no such file" in told("nosuch.pth")
    (tmp_path / "one.txt").touch()
    assert "expected a file that ends in .safetensors, .pt" in told(str(tmp_path / "one.txt"))
    (tmp_path / "one.pth").touch()
    assert "did you mean" in told(str(tmp_path / "onee.pth"))


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
def test_what_is_no_file_is_told_and_not_opened(kind: str, tmp_path: Path) -> None:
    place = tmp_path / "one.pth"
    {
        "folder": place.mkdir,
        "pipe": lambda: os.mkfifo(place),
        "loop": lambda: place.symlink_to(place),
        "device": lambda: place.symlink_to("/dev/zero"),
    }[kind]()
    with pytest.raises(UserError, match=r"one.pth': it is not a regular file, or a link that leads to none"):
        find(str(place))
