"""Features in a file: what was written is read, and nothing that is not whole is there."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bench.data.feature_file import FeatureFile, FeatureWriter, about_file

VIDEOS = 7
BROKEN = 4


def _features(dtype: torch.dtype) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "frames": torch.randn(VIDEOS, 3, 5, generator=generator).to(dtype),
        "sequence": torch.randn(VIDEOS, 3, 2, 4, generator=generator),
    }


def _written(path: Path, features: dict[str, torch.Tensor]) -> None:
    with FeatureWriter(path, VIDEOS) as writer:
        for rows in ([0, 1, 2], [3, 5], [6]):
            writer.write(rows, {name: each[rows] for name, each in features.items()})
        writer.finish({"video 4": "torn"}, ["pyav", "decord"])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_what_was_written_is_read(dtype: torch.dtype, tmp_path: Path) -> None:
    features = _features(dtype)
    _written(tmp_path / "new" / "train.bin", features)
    found = FeatureFile(tmp_path / "new" / "train.bin")
    assert len(found) == VIDEOS
    assert found.there.tolist() == [row != BROKEN for row in range(VIDEOS)]
    assert found.skipped == {"video 4": "torn"}
    assert found.decoders == {"pyav", "decord"}
    for rows in ([0], [6, 2, 2, 5], [row for row in range(VIDEOS) if row != BROKEN]):
        read = found.read(rows)
        assert list(read) == list(features)
        for name, each in features.items():
            assert read[name].dtype == each.dtype
            assert torch.equal(read[name], each[rows])


def test_a_file_that_is_not_whole_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "train.bin"
    with FeatureWriter(path, VIDEOS) as writer:
        writer.write([0], {name: each[:1] for name, each in _features(torch.float32).items()})
    assert not list(tmp_path.iterdir())
    with pytest.raises(OSError):
        FeatureFile(path)


@pytest.mark.parametrize("damage", ["short", "long", "no description", "torn description", "another type"])
def test_a_damaged_file_is_an_error(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "train.bin"
    _written(path, _features(torch.float32))
    content, about = path.read_bytes(), about_file(path).read_text()
    if damage == "short":
        path.write_bytes(content[:-1])
    elif damage == "long":
        path.write_bytes(content + b"!")
    elif damage == "no description":
        about_file(path).unlink()
    elif damage == "torn description":
        about_file(path).write_text(about[: len(about) // 2])
    else:
        about_file(path).write_text(about.replace("float32", "nn", 1))
    with pytest.raises((OSError, ValueError, KeyError, TypeError)):
        FeatureFile(path)


def test_records_that_differ_are_an_error(tmp_path: Path) -> None:
    features = _features(torch.float32)
    with FeatureWriter(tmp_path / "train.bin", VIDEOS) as writer:
        writer.write([0], {name: each[:1] for name, each in features.items()})
        with pytest.raises(ValueError):
            writer.write([1], {name: each[1:2, :2] for name, each in features.items()})
    with FeatureWriter(tmp_path / "val.bin", VIDEOS) as writer, pytest.raises(ValueError):
        writer.finish({}, [])
