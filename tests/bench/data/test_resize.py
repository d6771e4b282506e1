"""Test pixels beside mmcv's sizes, mmaction's crops and cv2's interpolation, on a photograph that matplotlib ships."""

from __future__ import annotations

import platform
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from matplotlib.cbook import get_sample_data
from numpy.typing import NDArray
from PIL import Image

from bench.data.cache import FrameCache
from bench.data.cache.entry import CODECS, Recompressed
from bench.data.clips import TestClips
from bench.data.dataset import Video
from bench.data.decode.base import shrunk
from bench.data.decode.open import open_video
from bench.data.transforms import TestTransform, ValTransform, resized, size_for
from bench.spec.fields import Pixels
from tests.bench.command import quoting
from tests.bench.data.cache.conftest import make_store
from tests.bench.data.videos import X264, picture, write
from tests.reference import resizing as reference
from tests.reference import sampling

Frame = NDArray[np.uint8]
# OpenCV's own code is the same everywhere, but where a maker of processors has put another in its place
EXACT = 0 if platform.machine() in ("x86_64", "AMD64") else 1


@pytest.fixture(scope="module")
def photograph() -> Callable[[int, int], Frame]:
    """The photograph in a size: (H, W, 3). 512x600 pixels of a portrait, a flag and braid, well lit and sharp."""
    with get_sample_data("grace_hopper.jpg", asfileobj=True) as file, Image.open(file) as image:
        whole = image.convert("RGB").copy()

    def of(height: int, width: int) -> Frame:
        return np.asarray(whole.resize((width, height), Image.Resampling.LANCZOS))

    return of


def clip(frame: Frame) -> torch.Tensor:
    """(H, W, 3) -> (1, 3, H, W)."""
    return torch.from_numpy(frame.copy()).permute(2, 0, 1)[None]


def by_cv2(frame: Frame, short_side: int, crop: int, crops: int) -> list[Frame]:
    """The views that mmaction makes of a frame."""
    height, width = reference.size(*frame.shape[:2], short_side)
    made = cv2.resize(frame, (width, height), interpolation=cv2.INTER_LINEAR)
    return [made[y : y + crop, x : x + crop] for y, x in reference.corners(height, width, crop, crops)]


def differences(ours: torch.Tensor, theirs: list[Frame]) -> NDArray[np.int64]:
    """Of views (V, 1, 3, S, S) and frames, of 255."""
    return np.abs(ours[:, 0].permute(0, 2, 3, 1).numpy().astype(np.int64) - np.stack(theirs))


def test_sizes_are_mmcvs() -> None:
    for height, short_side in ((256, 224), (270, 256), (240, 224), (360, 224), (1080, 256)):
        widths = range(height, height + 385)
        for width in widths:
            assert size_for(height, width, short_side) == reference.size(height, width, short_side)
            assert size_for(width, height, short_side) == reference.size(width, height, short_side)
    # a size that is cut off, as torchvision's is, would be another one
    cut_off = [224 * width // 256 for width in range(256, 641)]
    assert sum(size_for(256, width, 224)[1] != size for width, size in enumerate(cut_off, 256)) == 192


@pytest.mark.parametrize("width", [224, 225, 226, 255, 298, 299])
@pytest.mark.parametrize("crops", [1, 3])
def test_crops_start_where_mmactions_do(width: int, crops: int) -> None:
    across = torch.arange(width, dtype=torch.uint8)[None, None, None].expand(1, 3, 224, width).contiguous()
    across[:, 1] = torch.arange(224, dtype=torch.uint8)[:, None]
    for shown in (across, across.transpose(2, 3)):
        expected = reference.corners(*shown.shape[2:], 224, crops)
        views = TestTransform(224, crops)(shown)
        assert len(views) == len(expected)
        for view, (top, left) in zip(views, expected, strict=True):
            assert torch.equal(view, shown[..., top : top + 224, left : left + 224])


@pytest.mark.parametrize(("height", "width"), [(256, 343), (257, 256), (343, 256)])
def test_the_validations_crop_starts_where_mmactions_does(height: int, width: int) -> None:
    shown = torch.randint(0, 256, (1, 3, height, width), dtype=torch.uint8)
    ((top, left),) = reference.corners(*reference.size(height, width, 256), 224, 1)
    expected = resized(shown, reference.size(height, width, 256))[..., top : top + 224, left : left + 224]
    assert torch.equal(ValTransform(224)(shown)[0], expected)


@pytest.mark.parametrize("crops", [1, 3])
def test_crops_of_a_larger_picture_lie_in_its_middle(crops: int) -> None:
    """Short side 256, crops of 224: the middle one is the validation's."""
    shown = torch.randint(0, 256, (2, 3, 256, 341), dtype=torch.uint8)
    views = TestTransform(224, crops, 256)(shown)
    assert torch.equal(views[crops // 2], ValTransform(224)(shown)[0])
    if crops == 3:
        assert torch.equal(views[0], shown[..., 16:240, :224])
        assert torch.equal(views[2], shown[..., 16:240, 2 * 58 : 2 * 58 + 224])
    with pytest.raises(ValueError, match=quoting(223, 224)):
        TestTransform(224, crops, 223)


@pytest.mark.parametrize("crops", [1, 3])
@pytest.mark.parametrize(
    ("height", "width"),
    # Kinetics as it is mostly kept, SSv2's, upright, tiny, twice and near the input's size, full HD, odd
    [(256, 340), (240, 427), (340, 256), (128, 171), (448, 598), (224, 301), (225, 299), (1080, 1920), (101, 99)],
)
def test_released_pixels_are_cv2s(photograph: Callable[[int, int], Frame], height: int, width: int, crops: int) -> None:
    frame = photograph(height, width)
    for short_side in (224, 256):
        views = TestTransform(224, crops, short_side, "released")(clip(frame))
        assert differences(views, _views(frame, short_side, crops)).max() <= EXACT


def _views(frame: Frame, short_side: int, crops: int) -> list[Frame]:
    if short_side == 224 or crops == 1:
        return by_cv2(frame, short_side, 224, crops)
    # mmaction has no three crops of a larger picture: their middle is its centre crop, the others lie beside it
    height, width = reference.size(*frame.shape[:2], short_side)
    made = cv2.resize(frame, (width, height), interpolation=cv2.INTER_LINEAR)
    ((top, left),) = reference.corners(height, width, 224, 1)
    places = [(top, 0), (top, left), (top, 2 * left)] if width > height else [(0, left), (top, left), (2 * top, left)]
    return [made[y : y + 224, x : x + 224] for y, x in places]


def test_released_pixels_are_the_definitions(photograph: Callable[[int, int], Frame]) -> None:
    frame = photograph(48, 71)
    for height, width in ((20, 30), (37, 55), (96, 142)):
        found = resized(clip(frame), (height, width), "released")[0].permute(1, 2, 0).numpy()
        assert np.abs(found - reference.bilinear(frame, height, width)).max() < 1


def test_released_pixels_are_cv2s_whatever_the_sizes() -> None:
    """Noise, the hardest picture: any mistake in a share or a place shows."""
    rng = np.random.default_rng(0)
    for _ in range(40):
        height, width, new_height, new_width = rng.integers(2, 200, 4).tolist()
        frame = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        theirs = cv2.resize(frame, (new_width, new_height), interpolation=cv2.INTER_LINEAR)
        ours = resized(clip(frame), (new_height, new_width), "released")[None]
        assert differences(ours, [theirs]).max() <= EXACT


def test_own_pixels_are_antialiased_and_others(photograph: Callable[[int, int], Frame]) -> None:
    """As Pillow reduces a picture; cv2's, which picks a few pixels of each place, are 2.4 of 255 beside it."""
    frame = photograph(448, 596)
    ours = TestTransform(224)(clip(frame))
    pillow = np.asarray(Image.fromarray(frame).resize((298, 224), Image.Resampling.BILINEAR))[:, 37 : 37 + 224]
    assert differences(ours, [pillow]).max() <= 1
    assert differences(ours, by_cv2(frame, 224, 224, 1)).mean() > 2


def test_pieces_of_a_clip_are_resized_alike(photograph: Callable[[int, int], Frame]) -> None:
    """More frames than are held in int32 at once."""
    frames = torch.cat([clip(photograph(60 + i // 7, 80)[:60]) for i in range(21)])
    made = resized(frames, (31, 41), "released")
    assert torch.equal(made, torch.cat([resized(frame[None], (31, 41), "released") for frame in frames]))
    with pytest.raises(ValueError, match=quoting("pixels is 'mine'", "own", "released")):
        resized(frames, (31, 41), "mine")  # type: ignore[arg-type]


# ---- videos


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Video:
    """Twenty frames of 86x66 pixels: made to 28 by way of 32, they would be 37 pixels wide and not 36."""
    path = write(tmp_path_factory.mktemp("wide") / "wide.mp4", "libx264", picture(20, 66, 86), **X264)
    return Video(path, 0, path.name)


def test_what_is_made_smaller_twice_has_the_size_of_once(
    wide: Video, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """28 for 32 as 224 is for 256, whoever keeps the frames meanwhile."""
    once, twice = reference.size(66, 86, 28), reference.size(*reference.size(66, 86, 32), 28)
    assert once == (28, 36) and twice == (28, 37)
    stores = (None, make_store(tmp_path / "raw"), make_store(tmp_path / "jpeg", format="jpeg"))
    for store in stores:
        for _ in range(2):  # decoded, and from the store
            reader = FrameCache(store).open(wide.path, short_side=32)
            frames = reader.frames([3, 1])
            assert frames.shape[1:3] == reference.size(66, 86, 32) and reader.full_size == (66, 86)
            resize = TestTransform(28).resize
            assert resize(torch.from_numpy(frames).permute(0, 3, 1, 2), reader.full_size).shape[2:] == once
    through = Recompressed(open_video(wide.path, short_side=32), CODECS["jpeg"])
    assert through.frames([0]).shape[1:3] == (32, 42) and through.full_size == (66, 86)
    # and so the clips of a test know where their third crop starts
    seen: list[torch.Tensor] = []
    clips = TestClips((wide,), "uniform", 4, 4, 1, 3, 28, short_side=32)
    crop = clips.transform.crop
    monkeypatch.setattr(clips.transform, "crop", lambda whole: seen.append(whole) or crop(whole))
    assert clips[0].clip is not None and seen[0].shape == (4, 3, *once)


@pytest.mark.parametrize("pixels", ["own", "released"])
def test_a_tests_views_are_the_transforms_of_its_frames(wide: Video, pixels: Pixels) -> None:
    """Of more frames than are resized at once."""
    clips = TestClips((wide,), "dense", 8, 2, 2, 3, 28, view_side=30, pixels=pixels)
    views = clips[0].clip
    assert views is not None and views.shape == (6, 8, 3, 28, 28)
    frames = open_video(wide.path).frames(np.concatenate(sampling.dense_test(20, 8, 2, 2)))
    found = TestTransform(28, 3, 30, pixels)(torch.from_numpy(frames).permute(0, 3, 1, 2))
    assert torch.equal(views, found.reshape(6, 8, 3, 28, 28))


def test_decoders_round_as_the_transforms_do() -> None:
    frames = np.zeros((1, 47, 63, 3), np.uint8)
    assert shrunk(frames, 25).shape == (1, *reference.size(47, 63, 25), 3) == (1, 25, 34, 3)
