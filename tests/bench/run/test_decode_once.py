"""Cells of a run that share their decoding processes: the numbers and the skipped videos of each by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.data.motion.dataset import write_h264
from bench.run.engines import local
from bench.run.engines.decoding import SharedDecoding
from tests.bench.command import Command

PLUGINS = Path(__file__).parents[1] / "plugins"


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Lists of good videos, dark and bright, and a broken one in each."""
    root = tmp_path_factory.mktemp("once")
    rng = np.random.default_rng(0)
    for i in range(10):
        frames = rng.integers(0, 100, (17, 40, 40, 3), dtype=np.uint8) + np.uint8(150 * (i % 2))
        write_h264(root / f"{i}.mp4", frames, 8, 20)
    for split, numbers in (("train", range(6)), ("val", range(6, 8)), ("test", range(8, 10))):
        (root / f"{split}.mp4").write_text("no video at all\n" * 100)
        lines = [f"{i}.mp4 {i % 2}\n" for i in numbers]
        (root / f"{split}.txt").write_text("".join([*lines, f"{split}.mp4 0\n"]))
    return root


@pytest.mark.slow
def test_a_matrix_side_by_side_gives_what_its_cells_give_alone(
    bench: Command, videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[SharedDecoding] = []

    class Noted(SharedDecoding):
        def __init__(self, *of: Any, **how: Any) -> None:
            super().__init__(*of, **how)
            started.append(self)

    monkeypatch.setattr(local, "SharedDecoding", Noted)

    def run(workers: int, out: Path) -> None:
        said = bench(
            *("run", "--backbones", "vit:tiny@none", "--strategies", "frozen,joint", "--dataset", "torn"),
            *("--plugin", PLUGINS / "torn.py", "--plugin", PLUGINS / "hasty.py", "--data-root", videos),
            *("--epochs", 2, "--batch-size", 4, "--device", "cpu", "--cache", "off", "--loader-workers", 1),
            *("--workers", workers, "--out", out),
        )
        assert said.code == 0, said.out + said.err

    run(1, tmp_path / "alone")
    assert not started  # one cell at a time has processes of its own
    run(2, tmp_path / "beside")
    (shared,) = started
    assert shared.path is not None and not shared.path.parent.exists()
    cells = sorted(path.name for path in (tmp_path / "alone" / "cells").iterdir())
    assert len(cells) == 2
    for cell in cells:
        alone, beside = (tmp_path / run / "cells" / cell for run in ("alone", "beside"))
        assert (alone / "skipped.csv").read_text() == (beside / "skipped.csv").read_text() != ""
        with np.load(alone / "predictions.npz") as one, np.load(beside / "predictions.npz") as two:
            assert set(one.files) == set(two.files)
            assert all(np.array_equal(one[name], two[name]) for name in one.files)
