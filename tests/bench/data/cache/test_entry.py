from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bench.data.cache import FrameCache
from bench.data.dataset import Video
from bench.data.decode.open import open_video
from tests.bench.command import quoting
from tests.bench.data.cache.conftest import files, make_store


def test_jpeg_is_close_small_and_the_same_with_and_without_room(good: tuple[Video, ...], tmp_path: Path) -> None:
    path = good[0].path
    plain = open_video(path).frames(range(17))
    raw = make_store(tmp_path / "raw")
    FrameCache(raw).open(path).close()
    stores = (make_store(tmp_path / "c", format="jpeg"), make_store(tmp_path / "full", 1, format="jpeg"))
    found = []
    for store in stores:
        for _ in range(2):
            reader = FrameCache(store).open(path)
            assert (len(reader), reader.decoder) == (17, open_video(path).decoder)
            found.append(reader.frames(range(17)))
    error = np.mean((found[0].astype(float) - plain) ** 2)
    assert error > 0 and 10 * np.log10(255**2 / error) > 40
    for other in found[1:]:  # no reader can tell whether a cell's frames were cached
        assert np.array_equal(other, found[0])
    folder = stores[0]
    assert files(folder)[0].stat().st_size == folder.used_bytes < files(raw)[0].stat().st_size / 3


def test_formats_do_not_mix(good: tuple[Video, ...], tmp_path: Path) -> None:
    FrameCache(make_store(tmp_path, format="jpeg")).open(good[0].path).close()
    frames = FrameCache(make_store(tmp_path)).open(good[0].path).frames([0])
    assert np.array_equal(frames, open_video(good[0].path).frames([0]))
    assert len(files(make_store(tmp_path))) == 2


@pytest.mark.parametrize("damage", ["cut", "noise"])
def test_a_damaged_picture_is_an_error_with_its_place(good: tuple[Video, ...], tmp_path: Path, damage: str) -> None:
    store = make_store(tmp_path, format="jpeg")
    FrameCache(store).open(good[0].path).close()
    (file,) = files(store)
    content = bytearray(file.read_bytes())
    content[: 40 if damage == "noise" else 2] = bytes(40 if damage == "noise" else 2)
    file.write_bytes(content)
    reader = FrameCache(store).open(good[0].path)
    with pytest.raises(Exception, match=quoting("0.mp4", file)):
        reader.frames([0])
    assert reader.frames([1]).shape == (1, 48, 64, 3)
