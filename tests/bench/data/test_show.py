"""The pictures of a data set show what its videos show."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.data.motion.dataset import Motion
from bench.data.show import animation, contact_sheet, examples, write_pictures
from tests.bench.command import quotes


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Motion:
    dataset = Motion(train=2, val=1, test=1, cache=tmp_path_factory.mktemp("cache"))
    dataset.prepare()
    return dataset


def test_every_class_is_shown_once_with_the_frames_that_a_test_sees(small: Motion) -> None:
    shown = examples(small, "train", 8)
    assert [name for name, _ in shown] == list(small.classes)
    assert {frames.shape for _, frames in shown} == {(8, 80, 80, 3)}
    grow = dict(shown)["grow"].astype(int)
    assert np.abs(grow[0] - grow[-1]).mean() > 2


def test_the_sheet_holds_each_frame_at_its_place(small: Motion) -> None:
    shown = examples(small, "train", 4)
    sheet = np.asarray(contact_sheet(shown))
    for row, (_, frames) in enumerate(shown):
        for column, frame in enumerate(frames):
            top, left = 4 + row * 84, 110 + column * 84
            assert np.array_equal(sheet[top : top + 80, left : left + 80], frame)


def test_the_animation_has_a_picture_a_frame(small: Motion) -> None:
    pages = animation(examples(small, "train", 4))
    assert len(pages) == 4
    assert len({page.size for page in pages}) == 1
    assert np.abs(np.asarray(pages[0]).astype(int) - np.asarray(pages[-1])).mean() > 1


def test_both_files_are_written_whole(small: Motion, tmp_path: Path) -> None:
    sheet, moving = write_pictures(small, "test", tmp_path / "new", frames=4)
    with Image.open(sheet) as image:
        assert image.format == "PNG"
    with Image.open(moving) as image:
        assert image.format == "GIF"
        assert image.n_frames == 4
    assert sorted(file.name for file in (tmp_path / "new").iterdir()) == ["motion.gif", "motion.png"]


def test_what_cannot_be_shown_is_told(bench, tmp_path: Path) -> None:
    said = bench("data", "show", "motoin")
    assert said.code == 2
    assert quotes(said.err, "'motoin'", "'motion'")
