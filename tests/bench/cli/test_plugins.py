"""`bench` with a user's own code: what is wrong with it is a sentence, and what is right with it works like our own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from adapters.base import STRATEGIES
from tests.bench.command import Command

DRY = ("run", "--backbones", "vit:tiny@none", "--device", "cpu", "--dry-run")

STRATEGY = """
from adapters.base import register_strategy
from adapters.blockwise import BlockwiseStrategy

@register_strategy
class Mine(BlockwiseStrategy):
    name = "{name}"
    summary = "from a file"

    def adapt(self, block, index, depth, frames, options, drop_path):
        raise ZeroDivisionError("no half of\\nnothing")
"""
DATASET = """
from bench.data.dataset import VideoDataset, register_dataset

@register_dataset("folders")
class Folders(VideoDataset):
    name = "folders"
    summary = "a folder of videos a class"
    size = "tiny"
    frames = 4

    @property
    def classes(self):
        return tuple(sorted(folder.name for folder in self.root.iterdir()))

    def prepare(self, progress=None):
        raise AssertionError("a dry run prepares nothing")

    def videos(self, split):
        raise AssertionError("a dry run reads no list")
"""


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "160")


def names_in(folder: Path) -> list[str]:
    """Names of what lies in a folder, but for Python's own of the plugins that it imported there."""
    return sorted(name for name in os.listdir(folder) if name != "__pycache__")


def test_a_plugin_that_takes_a_name_of_ours_is_one_sentence(bench: Command, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(STRATEGY.format(name="joint"))
    for arguments in ((*DRY, "--strategies", "joint"), ("list", "strategies")):
        said = bench(*arguments, "--plugin", "mine.py")
        assert (said.code, said.out) == (2, "")
        (sentence,) = said.problems
        assert sentence.startswith(
            "plugin 'mine.py' cannot be imported: ValueError: the strategy name 'joint' is already taken"
        )
    assert type(STRATEGIES.get("joint")).__module__ == "adapters.aim"
    assert names_in(tmp_path) == ["mine.py"]


def test_a_strategy_that_cannot_adapt_is_told_by_a_dry_run(bench: Command, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(STRATEGY.format(name="mine"))
    said = bench(*DRY, "--strategies", "frozen,mine", "--plugin", "mine.py")
    assert said.code == 2
    assert said.err.startswith("bench: 1 problem; nothing was run or changed.\n")
    (sentence,) = said.problems
    assert sentence.startswith("vit:tiny@none mine 8f seed 0 cannot be built: ZeroDivisionError: no half of")
    # every line of what is said belongs to a sentence
    assert len(said.err.splitlines()) == 2
    assert names_in(tmp_path) == ["mine.py"]


def test_a_dry_run_counts_the_classes_of_the_folder_that_is_named(bench: Command, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(DATASET)
    trained = {}
    for count in (40, 300):
        root = tmp_path / f"with-{count}"
        for index in range(count):
            (root / f"class-{index}").mkdir(parents=True)
        said = bench(*DRY, "--strategies", "frozen", "--dataset", "folders", "--plugin", "mine.py", "--data-root", root)
        assert (said.code, said.err) == (0, "")
        (row,) = [line.split() for line in said.out.splitlines() if "vit:tiny@none" in line]
        trained[count] = row[-2]
    # the head alone: 96 weights and a bias a class, in millions
    assert trained == {count: f"{count * 97 / 1e6:.3g}" for count in (40, 300)} == {40: "0.00388", 300: "0.0291"}
    assert names_in(tmp_path) == ["mine.py", "with-300", "with-40"]
