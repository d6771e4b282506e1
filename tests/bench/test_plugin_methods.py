"""Methods that are not AIM's come from one plugin file: they train, count and are kept as the package's own are."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from adapters.base import STRATEGIES
from adapters.classifier import VideoClassifier
from bench.measure.counts import macs_by_part
from bench.measure.params import count
from bench.plugins import load
from bench.run.model_files.open import open_model_file
from bench.train.evaluate import top_k
from tests.bench.command import Command, Wording, quotes
from tests.bench.conftest import nothing_stays_registered
from tests.models import FRAMES, awaken, backbone, clips, image_features
from tests.reference.macs import swin_parts, vit_parts

PLUGINS = Path(__file__).parent / "plugins"
CLASSES, RANK, TOKENS = 10, 2, 3
WIDTH, DEPTH, PATCHES = 96, 4, 16  # of the tiny ViT and CLIP; a CLS token stands before the patches
TINY_VIT: dict[str, Any] = {"side": 32, "patch": 8, "width": WIDTH, "depth": DEPTH}
TINY_SWIN: dict[str, Any] = {"side": 32, "patch": 4, "width": 64, "depths": (2, 2), "window": 4}
# strategy and head of each method, and whether the order of the frames matters to it
METHODS = {
    "low-rank": ("low-rank", "linear", False),
    "prompts": ("prompts", "linear", False),
    "probe": ("frozen", "probe", False),
    "decoder": ("decoder", "linear", True),
    "nothing": ("still", "fixed", False),
}
DEFINED = [(f, m) for f in ("vit", "clip", "swin") for m in METHODS if (f, m) != ("swin", "prompts")]


@pytest.fixture(scope="module", autouse=True)
def _methods() -> Iterator[None]:
    with nothing_stays_registered():
        load([str(PLUGINS / "methods.py")])
        yield


def _model(family: str, method: str) -> VideoClassifier:
    strategy, head, _ = METHODS[method]
    chosen = STRATEGIES.get(strategy)
    torch.manual_seed(0)
    return VideoClassifier(
        backbone(family), chosen, chosen.options(), classes=CLASSES, frames=FRAMES, head=head, dropout=0.0
    )


def _linear_head(width: int) -> int:
    return (width + 1) * CLASSES


def _trained(family: str, method: str, frames: int = FRAMES) -> int:
    """Parameters by the methods' definitions."""
    widths = [64, 64, 128, 128] if family == "swin" else [WIDTH] * DEPTH
    last = widths[-1]
    return {
        "low-rank": sum(2 * 2 * RANK * width for width in widths) + _linear_head(last),
        "prompts": TOKENS * sum(widths) + _linear_head(last),
        "probe": last + (last + 1) * last + _linear_head(last),
        "decoder": 2 * (frames * last + last + (last + 1) * last) + 2 * last + _linear_head(last),
        "nothing": 0,
    }[method]


def _macs(family: str, method: str) -> dict[str, int]:
    """Multiply-accumulates of a view, what the strategy adds told apart where the image model's parts do not do it."""
    if family == "swin":
        parts = swin_parts(**TINY_SWIN, frames=FRAMES, classes=CLASSES)
        widths, tokens = [64, 64, 128, 128], [64, 64, 16, 16]
    else:
        parts = vit_parts(**TINY_VIT, frames=FRAMES, classes=CLASSES)
        widths, tokens = [WIDTH] * DEPTH, [PATCHES + 1] * DEPTH
    width, read = widths[-1], FRAMES * tokens[-1]
    if method == "low-rank":
        parts["spatial_attention"] += sum(FRAMES * n * 2 * 2 * RANK * d for n, d in zip(tokens, widths, strict=True))
    if method == "prompts":
        more = FRAMES * DEPTH * TOKENS * WIDTH
        both, alone = (PATCHES + 1 + TOKENS) ** 2, (PATCHES + 1) ** 2
        parts["spatial_attention"] += 4 * WIDTH * more + FRAMES * DEPTH * 2 * WIDTH * (both - alone)
        parts["mlp"] += 8 * WIDTH * more
    if method == "probe":  # scores and sum are a product of a matrix and a vector, and one that is no product
        parts["head"] += read * width * (width + 1)
    if method == "decoder":
        if family == "swin":
            tokens = tokens[-2:]
        parts["adapters"] += 2 * read * width * (width + 1)
    return parts


@pytest.mark.parametrize(("family", "method"), DEFINED)
def test_exactly_what_the_method_names_trains(family: str, method: str) -> None:
    adapted = _model(family, method)
    assert count(adapted)[1] == _trained(family, method)
    before = {name: value.clone() for name, value in adapted.state_dict().items()}
    awaken(adapted)
    adapted.train()
    loss = adapted(clips()).square().sum()
    if method == "nothing":
        assert not loss.requires_grad
        return
    loss.backward()
    for name, parameter in adapted.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
    frozen = [name for name, parameter in adapted.named_parameters() if not parameter.requires_grad]
    assert frozen and all(torch.equal(before[name], adapted.state_dict()[name]) for name in frozen)
    if method == "decoder":
        assert not adapted.body.graph_below
    if method in ("probe", "decoder"):
        assert not any(name.startswith("backbone.") for name, _ in adapted.trained())


@pytest.mark.parametrize("family", ["vit", "clip", "swin"])
@pytest.mark.parametrize("method", ["low-rank", "nothing"])
def test_at_the_start_it_computes_what_the_image_model_does(family: str, method: str) -> None:
    adapted = _model(family, method).eval()
    with torch.no_grad():
        torch.testing.assert_close(adapted.features(clips()), image_features(adapted, clips()), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("family", "method"), DEFINED)
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_counts_agree_with_the_closed_form(family: str, method: str, device: str) -> None:
    with torch.device(device):
        adapted = _model(family, method)
    found, expected = macs_by_part(adapted), _macs(family, method)
    assert {part: n for part, n in found.items() if n} == {part: n for part, n in expected.items() if n}


@pytest.mark.parametrize(("family", "method"), DEFINED)
def test_the_order_of_the_frames_matters_where_the_method_says_so(family: str, method: str) -> None:
    adapted = _model(family, method).eval()
    awaken(adapted)
    with torch.no_grad():
        given, back = adapted(clips()), adapted(clips().flip(1))
    strategy, _, aware = METHODS[method]
    assert STRATEGIES.get(strategy).order_aware == aware
    assert torch.allclose(given, back, atol=1e-5) != aware


@pytest.mark.parametrize("family", ["vit", "clip", "swin"])
def test_a_merged_update_predicts_the_same_and_computes_what_the_image_model_does(family: str) -> None:
    adapted = _model(family, "low-rank").eval()
    awaken(adapted)
    deployed = STRATEGIES.get("low-rank").merge(copy.deepcopy(adapted))
    with torch.no_grad():
        expected = adapted(clips())
        torch.testing.assert_close(deployed(clips()), expected, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(adapted(clips()), expected, rtol=0, atol=0)  # the copy was merged, not the model
    assert sum(macs_by_part(deployed).values()) == sum(_macs(family, "nothing").values())
    assert count(deployed)[0] == count(_model(family, "nothing"))[0]


def test_what_does_not_go_together_is_told_with_its_reason(bench: Command, tmp_path: Path, wording: Wording) -> None:
    plugin = ("--plugin", PLUGINS / "methods.py", "--out", tmp_path / "run")
    said = bench(
        "run", "--backbones", "swin:tiny,vit:tiny", "--strategies", "prompts,decoder", "--heads", "probe", *plugin
    )
    assert said.code == 2
    body, head = said.problems
    assert quotes(body, "swin:tiny", "prompts") and quotes(head, "probe", "decoder")
    wording([body, head])
    said = bench("run", "--strategies", "frozen", "--heads", "prob", *plugin)
    assert said.code == 2
    assert quotes(said.err, "'prob'", "'probe'")
    assert not (tmp_path / "run").exists()


def _run(bench: Command, out: Path, *arguments: str) -> pd.DataFrame:
    plugins = [part for name in ("methods", "small", "hasty") for part in ("--plugin", str(PLUGINS / f"{name}.py"))]
    said = bench(
        "run", "--dataset", "small", "--out", str(out), "--backbones", "vit:tiny,clip:tiny", *plugins, *arguments
    )
    assert said.code == 0, said.out + said.err
    return pd.read_csv(out / "results.csv", dtype={"cell": str})


def test_each_is_trained_kept_and_evaluated_by_a_command(bench: Command, tmp_path: Path) -> None:
    table = pd.concat(
        [
            _run(bench, tmp_path / "strategies", "--strategies", "low-rank,prompts,decoder"),
            _run(bench, tmp_path / "heads", "--strategies", "frozen", "--heads", "probe"),
            _run(bench, tmp_path / "nothing", "--strategies", "still", "--heads", "fixed", "--epochs", "0"),
        ]
    )
    assert list(table["status"]) == ["done"] * 10
    for file in tmp_path.glob("*/cells/*/adapter.safetensors"):
        cell = json.loads((file.parent / "cell.json").read_text())
        method = next(
            m
            for m, (strategy, head, _) in METHODS.items()
            if (strategy, head) == (cell["strategy"], cell.get("head", "linear"))
        )
        row = table[table["cell"] == file.parent.name.rpartition("-")[2]].iloc[0]
        family = cell["backbone"].partition(":")[0]
        trained = _trained(family, method, cell["frames"])
        assert row["trained_params_m"] * 1e6 == pytest.approx(trained, abs=1)
        assert row["epochs"] == (0 if method == "nothing" else 1)
        assert pd.isna(row["train_clips_per_s"]) == (method == "nothing")
        opened, _ = open_model_file(file).build(cell["frames"])
        found = np.load(file.parent / "predictions.npz")
        assert top_k(found["probabilities"], found["labels"], 1) == pytest.approx(row["top1"])
        assert sum(p.numel() for _, p in opened.trained()) == trained
        if family == "clip":
            continue
        plugins = [part for name in ("methods", "small") for part in ("--plugin", PLUGINS / f"{name}.py")]
        said = bench("eval", "--checkpoint", file, "--dataset", "small", *plugins, "--format", "json")
        assert said.code == 0, said.err
        assert json.loads(said.out)["top1"] == pytest.approx(row["top1"])
