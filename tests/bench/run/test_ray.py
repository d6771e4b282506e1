"""The engine of a Ray cluster without one: the needs of cells, storages of checkpoints, refusals."""

from __future__ import annotations

import importlib.util
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from bench.measure.placement import Placement
from bench.run.engines.ray_cluster import Needs, needs_of
from bench.run.engines.storage import Storage, read_checkpoint, step_of, write_files
from tests.bench import make
from tests.bench.command import Command

PLUGIN = str(Path(__file__).parents[1] / "plugins" / "small.py")
ROOT = Path(__file__).parents[3]
STEPS = 20  # 40 training videos in batches of 8, 4 epochs
CPU = Placement("cpu", None, "fp32")
ASKED = ("run", "--backbones", "vit:tiny@none", "--strategies", "frozen", "--device", "cpu", "--engine", "ray")
with_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed: the extra ray")


@pytest.mark.parametrize(
    ("needs", "node", "jobs"),
    [
        (Needs(2), Needs(7), 3),
        (Needs(2), Needs(1, 8), 0),
        (Needs(4, 1), Needs(32, 8), 8),
        (Needs(4, 1), Needs(6, 8), 1),
        (Needs(1, 2), Needs(64, 3), 1),
        (Needs(1, 1), Needs(64), 0),
    ],
)
def test_a_node_has_room_for_what_both_its_cpus_and_its_gpus_allow(needs: Needs, node: Needs, jobs: int) -> None:
    assert needs.fit(node) == jobs


def test_a_cell_takes_its_threads_or_a_gpu_with_its_share_of_the_cpus() -> None:
    tiny, on_gpu = make.cell(), make.cell(device="cuda")
    assert needs_of(tiny, [Needs(64, 8)]) == Needs(1)
    # what every node with GPUs can give each of them
    assert needs_of(on_gpu, [Needs(64, 8), Needs(2), Needs(48, 4)]) == Needs(8, 1)
    assert needs_of(on_gpu, [Needs(2, 4)]) == Needs(1, 1)


def _checkpoint(step: int) -> dict[str, bytes]:
    state = f"state-{step:09d}.pt"
    manifest = f'{{"step": {step}, "state": "{state}"}}'.encode()
    return {f"checkpoint/{state}": b"s" * step, "log.jsonl": b"l" * step, "checkpoint/checkpoint.json": manifest}


@pytest.mark.parametrize("scheme", ["", "file://", "memory://"])
def test_a_storage_keeps_the_last_checkpoint(scheme: str, tmp_path: Path) -> None:
    storage = Storage(f"{scheme}{tmp_path}/store").of("run", "cell")
    assert storage.read() == {} and storage.why_not_writable() is None
    assert scheme == "memory://" or list(tmp_path.iterdir()) == []
    for step in (5, 10):
        storage.write(_checkpoint(step))
        assert storage.read() == _checkpoint(step) and step_of(storage.read()) == step
    if scheme != "memory://":
        names = sorted(file.name for file in (tmp_path / "store" / "run" / "cell").iterdir())
        assert names == ["checkpoint.json", "log.jsonl", "state-000000010.pt"]
    storage.clear()
    assert storage.read() == {}
    storage.clear()


def test_a_storage_that_fails_midway_has_the_checkpoint_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = Storage(str(tmp_path))
    storage.write(_checkpoint(5))
    with pytest.MonkeyPatch.context() as patch:

        def full(*_: Any) -> None:
            raise OSError(28, "No space left on device")

        patch.setattr(storage._system, "mv", full)
        with pytest.raises(OSError):
            storage.write(_checkpoint(10))
    assert storage.read() == _checkpoint(5)


def test_a_checkpoint_travels_from_folder_to_folder(tmp_path: Path) -> None:
    (there := tmp_path / "there").mkdir()
    assert read_checkpoint(there) == {} and step_of({}) == -1
    for step in (5, 10):
        write_files(there, _checkpoint(step))
        assert read_checkpoint(there) == _checkpoint(step)
    assert len(list((there / "checkpoint").iterdir())) == 2
    (there / "checkpoint" / "state-000000010.pt").unlink()
    assert read_checkpoint(there) == {}
    (there / "checkpoint" / "checkpoint.json").write_text("{")
    assert read_checkpoint(there) == {}


def _refused(bench: Command, tmp_path: Path, *flags: object) -> list[str]:
    """The problems that the command ends with; it leaves nothing."""
    before = sorted(path.name for path in tmp_path.iterdir())
    said = bench(*ASKED, "--out", tmp_path / "run", *flags)
    assert (said.code, said.out) == (2, "")
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    return said.problems


def test_without_ray_the_extra_is_named(bench: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "ray" else find(name, *rest))
    (told,) = _refused(bench, tmp_path)
    assert "aim-bench[ray]" in told


@with_ray
def test_everything_wrong_with_address_and_storage_is_told_at_once(bench: Command, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with socket.create_server(("127.0.0.1", 0)) as server:
        free = server.getsockname()[1]
    flags = ("--ray-address", f"127.0.0.1:{free}", "--storage", tmp_path / "file" / "store", "--precision", "fp8")
    told = _refused(bench, tmp_path, *flags)
    assert sorted(line.split(" ")[0] for line in told) == ["precision", "ray_address", "storage"]


@with_ray
@pytest.mark.parametrize("address", ["ray://127.0.0.1:1", "head", "head:port", "head:0", ":6379"])
def test_an_address_that_is_none_is_refused(address: str, bench: Command, tmp_path: Path) -> None:
    (told,) = _refused(bench, tmp_path, "--ray-address", address)
    assert repr(address) in told and "expected HOST:PORT" in told


@with_ray
def test_what_answers_and_is_not_ray_is_given_up(
    bench: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.run.engines.ray_cluster._ANSWER", 2.0)
    with socket.create_server(("127.0.0.1", 0)) as server:
        begun = time.monotonic()
        (told,) = _refused(bench, tmp_path, "--ray-address", f"127.0.0.1:{server.getsockname()[1]}")
        assert time.monotonic() - begun < 240
    assert "ray_address" in told


@with_ray
@pytest.mark.parametrize("url", ["nonsense://store", "s4://store"])
def test_a_storage_of_an_unknown_protocol_is_refused(url: str, bench: Command, tmp_path: Path) -> None:
    (told,) = _refused(bench, tmp_path, "--storage", url)
    assert repr(url) in told
