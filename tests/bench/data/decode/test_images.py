"""Folders of pictures, one a frame."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.data.decode.base import VideoError
from bench.data.decode.open import open_video
from tests.bench.command import quoting
from tests.bench.data.decode.conftest import psnr
from tests.bench.data.videos import picture

FRAMES = picture(12)


def folder(path: Path, pattern: str, count: int = 12, first: int = 1) -> Path:
    """A folder of the first frames, under names like `img_{:05}.jpg`."""
    path.mkdir()
    for i in range(count):
        Image.fromarray(FRAMES[i]).save(path / pattern.format(first + i), quality=98, subsampling=0)
    return path


@pytest.mark.parametrize(
    ("pattern", "first"), [("img_{:05}.jpg", 1), ("frame_{:06}.png", 0), ("{}.jpg", 1), ("v_1_{:04}.JPEG", 5)]
)
def test_a_folder_is_read_as_a_video(tmp_path: Path, pattern: str, first: int) -> None:
    video = open_video(folder(tmp_path / "film", pattern, first=first))
    assert len(video) == 12 and video.decoder == "images"
    assert psnr(video.frames([11, 0, 9, 9, 1]), FRAMES[[11, 0, 9, 9, 1]]) > 40
    with pytest.raises(IndexError, match=quoting("frame 12", 0, 11)):
        video.frames([12])


def test_pictures_come_smaller(tmp_path: Path) -> None:
    small = open_video(folder(tmp_path / "film", "img_{:05}.png"), short_side=24).frames([7, 3])
    expected = [np.asarray(Image.fromarray(FRAMES[i]).resize((32, 24), Image.Resampling.BILINEAR)) for i in (7, 3)]
    assert small.shape == (2, 24, 32, 3) and psnr(small, np.stack(expected)) > 40


def test_the_list_says_how_many_there_are(tmp_path: Path) -> None:
    film = folder(tmp_path / "film", "img_{:05}.jpg", count=5)
    assert len(open_video(film, frames=5)) == 5
    assert len(open_video(film, frames=4)) == 4
    with pytest.raises(VideoError, match=quoting(film, 5, 6)):
        open_video(film, frames=6)


def test_flow_beside_the_frames_is_passed_over(tmp_path: Path) -> None:
    film = folder(tmp_path / "film", "img_{:05}.jpg", count=3)
    for i in range(1, 3):
        Image.new("L", (64, 48)).save(film / f"flow_x_{i:05}.jpg")
        (film / "notes.txt").touch()
    assert len(open_video(film)) == 3


def test_grey_pictures_have_three_channels(tmp_path: Path) -> None:
    (tmp_path / "film").mkdir()
    Image.fromarray(FRAMES[0, :, :, 0]).save(tmp_path / "film" / "img_1.png")
    assert np.array_equal(open_video(tmp_path / "film").frames([0])[0], FRAMES[0, :, :, :1].repeat(3, -1))


def test_folders_that_are_no_video(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(VideoError, match=quoting(empty, "img_00001.jpg")):
        open_video(empty)
    two = folder(tmp_path / "two", "left_{}.jpg", count=2)
    Image.fromarray(FRAMES[0]).save(two / "right_1.jpg")
    with pytest.raises(VideoError, match=r"\b2\b.*left_\*, right_\*.*img_\*"):
        open_video(two)
    twice = folder(tmp_path / "twice", "img_{}.jpg", count=2)
    Image.fromarray(FRAMES[0]).save(twice / "img_2.png")
    with pytest.raises(VideoError, match=quoting("img_2.jpg", "img_2.png")):
        open_video(twice)


def test_pictures_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    film = folder(tmp_path / "film", "img_{}.jpg", count=4)
    (film / "img_2.jpg").write_bytes((film / "img_2.jpg").read_bytes()[:300])
    (film / "img_3.jpg").write_text("no picture")
    Image.new("RGB", (32, 32)).save(film / "img_4.jpg")
    video = open_video(film)
    for index in (1, 2):
        with pytest.raises(VideoError, match=quoting(film, f"img_{index + 1}.jpg")):
            video.frames([0, index])
    with pytest.raises(VideoError, match=quoting("img_4.jpg", "32x32", "img_1.jpg")):
        video.frames([0, 3])
