"""Hashes of what has no version go into the cell: another content is another cell, and nothing else is."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from backbones.names import BackboneName
from bench.plugins import load
from bench.run.matrix import expand
from bench.run.provenance import sources
from bench.spec import Cell, Matrix

STRATEGY = """
from adapters.base import register_strategy
from adapters.blockwise import BlockwiseStrategy

@register_strategy
class Mine(BlockwiseStrategy):
    name = "{name}"
    summary = "from a file"
"""
DATASET = """
from bench.data.dataset import register_dataset
from bench.data.motion.dataset import Motion

@register_dataset("{name}")
class Mine(Motion):
    name = "{name}"
"""
FAMILY = """
from backbones.families import ViTFamily, register_backbone

@register_backbone
class Mine(ViTFamily):
    name = "{name}"
"""


def _write(file: Path, text: str) -> Path:
    """A file whose time of change differs from its last, however fast the test is."""
    changed = file.stat().st_mtime_ns + 1_000_000_000 if file.exists() else None
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)
    if changed is not None:
        os.utime(file, ns=(changed, changed))
    return file


def _cell(**changes: Any) -> Cell:
    values = {"backbones": ("vit:tiny@none",), "strategies": ("frozen",), "device": "cpu", **changes}
    return expand(Matrix(**values)).cells[0]


def test_the_content_of_a_weights_file_is_part_of_the_cell(tmp_path: Path) -> None:
    file = tmp_path / "w.safetensors"
    keys = []
    for text in ("one", "two", "one"):
        cell = _cell(backbones=(f"vit:tiny@{_write(file, text)}",))
        assert cell.sources.keys() == {"weights", "videos"}
        keys.append(cell.key)
    assert keys[0] == keys[2] != keys[1]
    # another path is another name, and no other content
    copy = _cell(backbones=(f"vit:tiny@{_write(tmp_path / 'copy.safetensors', 'one')}",))
    assert copy.sources == _cell(backbones=(f"vit:tiny@{file}",)).sources


def test_what_stands_beside_the_weights_of_a_folder_is_part_of_the_cell(tmp_path: Path) -> None:
    folder = tmp_path / "vit-base"
    texts = {
        "model.safetensors": "one",
        "config.json": '{"model_type": "vit"}',
        "preprocessor_config.json": "{}",
        "README.md": "read me",
    }
    for name, text in texts.items():
        _write(folder / name, text)
    names = [f"vit:tiny@{folder}", f"vit:tiny@{folder / 'model.safetensors'}"]
    before = [_cell(backbones=(name,)) for name in names]
    assert before[0].weights == str(folder) and before[0].weights_label == "vit-base"
    assert before[1].weights_label == "vit-base/model.safetensors"
    for name, text in texts.items():
        _write(folder / name, f"{text} ")
        after = [_cell(backbones=(one,)) for one in names]
        assert [one.sources != other.sources for one, other in zip(before, after, strict=True)] == [
            name != "README.md"
        ] * 2
        before = after


def test_all_parts_of_split_weights_are_part_of_the_cell(tmp_path: Path) -> None:
    for name in ("a", "b"):
        _write(tmp_path / name, name)
    _write(tmp_path / "model.safetensors.index.json", '{"weight_map": {"x": "a", "y": "b"}}')
    keys = {_cell(backbones=(f"vit:tiny@{tmp_path}",)).key}
    for name in ("a", "b"):
        _write(tmp_path / name, "changed")
        keys.add(_cell(backbones=(f"vit:tiny@{tmp_path}",)).key)
    assert len(keys) == 3


def test_links_are_followed_as_far_as_their_neighbours_stay(tmp_path: Path) -> None:
    """In the hub's cache a file is a link to one without a name and without config.json beside it."""
    blob = _write(tmp_path / "blobs" / "1234", "one")
    _write(tmp_path / "snapshot" / "config.json", '{"model_type": "vit"}')
    (tmp_path / "snapshot" / "model.safetensors").symlink_to(blob)
    (tmp_path / "link").symlink_to(tmp_path / "snapshot")
    assert _cell(backbones=(f"vit:tiny@{tmp_path / 'link'}",)).weights == str(tmp_path / "snapshot")
    expected = str(tmp_path / "snapshot" / "model.safetensors")
    assert _cell(backbones=(f"vit:tiny@{tmp_path / 'link' / 'model.safetensors'}",)).weights == expected


def test_bundled_weights_are_a_file_and_random_ones_are_none() -> None:
    assert sources(BackboneName("vit", "tiny", "bundled")).keys() == {"weights"}
    assert sources(BackboneName("vit", "tiny", "none")) == {}
    assert sources(BackboneName("vit", "vit_base_patch16_224", "augreg_in21k")) == {}


@pytest.mark.parametrize(
    ("kind", "text", "asked"),
    [
        ("strategy", STRATEGY, {"strategies": ("mine",)}),
        ("dataset", DATASET, {"datasets": ("mine",)}),
        ("family", FAMILY, {"backbones": ("mine:tiny@none",)}),
    ],
)
def test_a_plugins_code_is_part_of_the_cells_that_use_it_and_of_no_other(
    kind: str, text: str, asked: dict[str, Any], tmp_path: Path
) -> None:
    plain = _cell()
    file = _write(tmp_path / "plugin.py", text.format(name="mine"))
    load([str(file)])
    assert _cell().key == plain.key
    first = _cell(**asked)
    assert first.sources.keys() - {"videos"} == {kind}
    _write(file, file.read_text() + "# changed\n")
    second = _cell(**asked)
    assert first.key != second.key
    assert first.model_copy(update={"sources": second.sources}) == second
    assert _cell().key == plain.key


def test_an_unrelated_plugin_changes_no_cell(tmp_path: Path) -> None:
    mine, other = (_write(tmp_path / f"{name}.py", STRATEGY.format(name=name)) for name in ("mine", "other"))
    load([str(mine)])
    before = _cell(strategies=("mine",))
    load([str(other)])
    assert _cell(strategies=("mine",)) == before
    _write(other, other.read_text() + "# changed\n")
    assert _cell(strategies=("mine",)) == before
    assert _cell(strategies=("other",)).sources.keys() == {"strategy", "videos"}


def test_two_plugins_of_one_name_both_count(tmp_path: Path) -> None:
    """Files of one name in two folders are two plugins."""
    strategy = _write(tmp_path / "one" / "plugin.py", STRATEGY.format(name="mine"))
    dataset = _write(tmp_path / "two" / "plugin.py", DATASET.format(name="mine"))
    load([str(strategy), str(dataset)])
    keys = [_cell(strategies=("mine",), datasets=("mine",)).key]
    for file in (strategy, dataset):
        _write(file, file.read_text() + "# changed\n")
        keys.append(_cell(strategies=("mine",), datasets=("mine",)).key)
    assert len(set(keys)) == 3


def test_the_built_in_names_have_a_version_and_need_no_hash() -> None:
    assert _cell(strategies=("joint",)).sources.keys() == {"videos"}


@pytest.mark.parametrize("change", [{"VERSION": 99}, {"QP": 30}])
def test_videos_that_are_rendered_otherwise_make_another_cell(
    change: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = _cell()
    for name, value in change.items():
        monkeypatch.setattr(f"bench.data.motion.dataset.{name}", value)
    after = _cell()
    assert after.key != before.key
    assert after.model_copy(update={"sources": before.sources}) == before
