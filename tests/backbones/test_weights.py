"""Weights from files: all of them or an error that names what does not fit; hubs out of reach; no code in pickles."""

from __future__ import annotations

import pickle
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from backbones.families import build, resolve
from backbones.names import BackboneName, WeightsError
from backbones.weights import digest
from tests.bench.command import Wording, quoting
from tests.models import FAMILIES, backbone


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_a_file_gives_the_weights_it_holds(tmp_path: Path, family: str, suffix: str) -> None:
    source = backbone(family, seed=3)
    file = tmp_path / f"weights{suffix}"
    state = source.model.state_dict()
    if suffix == ".pt":
        torch.save({"state_dict": state}, file)
    else:
        save_file({name: value.contiguous() for name, value in state.items()}, file)
    name = resolve(f"{family}:tiny@{file}", "tiny")
    loaded = build(name)
    assert digest(loaded) == digest(source)
    assert digest(loaded) != digest(backbone(family, seed=4))


def test_a_whole_clip_checkpoint_gives_its_image_tower(tmp_path: Path) -> None:
    source = backbone("clip", seed=3)
    state = {f"visual.{name}": value for name, value in source.model.state_dict().items()}
    torch.save({**state, "visual.proj": torch.zeros(96, 96), "logit_scale": torch.zeros(())}, tmp_path / "clip.pt")
    assert digest(build(resolve(f"clip:tiny@{tmp_path / 'clip.pt'}", "tiny"))) == digest(source)


def test_a_classifier_in_the_file_is_passed_over(tmp_path: Path) -> None:
    source = backbone("vit", seed=3)
    torch.save({**source.model.state_dict(), "head.weight": torch.zeros(5, 96)}, tmp_path / "vit.pth")
    assert digest(build(resolve(f"vit:tiny@{tmp_path / 'vit.pth'}", "tiny"))) == digest(source)


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    state = backbone("vit").model.state_dict()
    del state["blocks.0.norm1.weight"]
    state["stranger"] = torch.zeros(2)
    state["norm.bias"] = torch.zeros(5)
    torch.save(state, tmp_path / "vit.pt")
    with pytest.raises(WeightsError) as caught:
        build(resolve(f"vit:tiny@{tmp_path / 'vit.pt'}", "tiny"))
    for part in ("missing: blocks.0.norm1.weight", "surplus: stranger", "misshapen: norm.bias (5,) instead of (96,)"):
        assert part in str(caught.value)


class _Hostile:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return (Path.touch, (self.target,))


def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path, wording: Wording) -> None:
    with (tmp_path / "evil.pt").open("wb") as file:
        pickle.dump({"weight": _Hostile(tmp_path / "ran")}, file)
    torch.save({"weight": _Hostile(tmp_path / "ran")}, tmp_path / "evil2.pt")
    for name in ("evil.pt", "evil2.pt"):
        with pytest.raises(WeightsError, match=quoting(name)) as refused:
            build(BackboneName("vit", "tiny", str(tmp_path / name)))
        wording([refused.value])
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["cut.safetensors", "cut.pt", "empty.pt", "text.safetensors"])
def test_a_broken_file_is_one_clear_line(tmp_path: Path, name: str) -> None:
    whole = {name: value.contiguous() for name, value in backbone("vit").model.state_dict().items()}
    save_file(whole, tmp_path / "whole.safetensors")
    torch.save(whole, tmp_path / "whole.pt")
    content = {"empty.pt": b"", "text.safetensors": b"these are not weights"}.get(name)
    if content is None:
        content = (tmp_path / f"whole{Path(name).suffix}").read_bytes()[:5000]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match=name):
        build(BackboneName("vit", "tiny", str(tmp_path / name)))


@pytest.mark.parametrize("name", ["vit:test_vit.r160_in1k", "clip:ViT-B-16@openai", "swin:swin_s3_tiny_224"])
def test_an_unreachable_hub_is_a_clear_line_within_seconds(name: str, monkeypatch, tmp_path: Path) -> None:
    import socket

    def refuse(*arguments, **named):
        raise OSError("Network is unreachable")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    for proxy in ("http_proxy", "https_proxy", "all_proxy"):
        for variable in (proxy, proxy.upper()):
            monkeypatch.delenv(variable, raising=False)
    resolved = resolve(name, "base")
    begun = time.monotonic()
    with pytest.raises(WeightsError) as caught:
        build(resolved)
    assert time.monotonic() - begun < 120
    assert str(resolved) in str(caught.value)
    assert "@none" in str(caught.value)
    assert "\n" not in str(caught.value)
