"""Computation of logits: frozen weights rounded where autocast would, one graph for whole batches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from backbones.kernels.precision import cast_frozen_weights
from backbones.kernels.switch import using
from bench.data.transforms import normalise
from bench.spec import Recipe
from bench.train import compute
from bench.train.compute import Computation
from bench.train.evaluate import Predictor
from bench.train.trainer import Trainer
from tests.bench.command import quoting
from tests.models import CLASSES, FAMILIES, FRAMES, awaken, model

CPU = torch.device("cpu")


def _pixels(count: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, FRAMES, 3, 32, 32), dtype=torch.uint8, generator=generator)


def _labels(count: int = 2) -> torch.Tensor:
    return torch.arange(count) % CLASSES


@pytest.mark.parametrize("family", FAMILIES)
def test_frozen_weights_of_products_are_rounded_and_nothing_else_is(family: str) -> None:
    before = {name: p.detach().clone() for name, p in model(family, "joint").named_parameters()}
    adapted = model(family, "joint")
    cast_frozen_weights(adapted, torch.bfloat16)
    rounded = set()
    for name, parameter in adapted.named_parameters():
        if parameter.dtype == torch.bfloat16:
            rounded.add(name)
            assert not parameter.requires_grad
            assert parameter.equal(before[name].bfloat16())
        else:
            assert parameter.equal(before[name])
    matrices = {n for n, p in adapted.named_parameters() if p.ndim > 1 and not p.requires_grad and "embed" not in n}
    assert {n for n in matrices if not n.endswith(("table", "token", "positional_embedding"))} <= rounded
    assert len(rounded) > 4 * len(adapted.body.blocks)


def test_in_single_precision_nothing_is_rounded() -> None:
    adapted = model("vit", "frozen")
    Computation(adapted, CPU, "fp32")
    assert {p.dtype for p in adapted.parameters()} == {torch.float32}


@pytest.mark.parametrize("family", FAMILIES)
def test_rounded_weights_give_what_autocast_gives(family: str) -> None:
    adapted, plain = model(family, "joint").eval(), model(family, "joint").eval()
    awaken(adapted)
    awaken(plain)
    with torch.no_grad():
        found = Computation(adapted, CPU, "bf16")(_pixels(), 2)
        pixels = normalise(_pixels(), plain.backbone.mean, plain.backbone.std)
        with torch.autocast("cpu", torch.bfloat16):
            assert found.equal(plain(pixels))


def _counting(monkeypatch: pytest.MonkeyPatch) -> list[torch.fx.GraphModule]:
    """A compiler that runs graphs as they are, and the graphs that it was given."""
    graphs: list[torch.fx.GraphModule] = []

    def compiler(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Callable[..., Any]:
        graphs.append(graph)
        return graph.forward

    monkeypatch.setattr(compute, "_BACKEND", compiler)
    return graphs


@pytest.mark.parametrize(
    ("family", "strategy", "precision"),
    [
        ("vit", "joint", "bf16"),
        ("clip", "joint", "bf16"),
        ("swin", "joint", "bf16"),
        ("clip", "timesformer", "bf16"),
        ("vit", "frozen", "fp32"),
    ],
)
def test_one_graph_computes_a_step_and_gives_the_same(
    monkeypatch: pytest.MonkeyPatch, family: str, strategy: str, precision: Any
) -> None:
    graphs = _counting(monkeypatch)
    found = []
    for compiled in (False, True):
        adapted = model(family, strategy)
        awaken(adapted)
        trainer = Trainer(adapted, Recipe(batch_size=2, drop_path=0.0), CPU, precision, compile=compiled)
        for _ in range(2):
            loss, _ = trainer.step(_pixels(), _labels())
        assert trainer.computation.compiled == compiled
        found.append((loss, torch.cat([p.detach().flatten() for _, p in adapted.trained()])))
    assert len(graphs) == 1  # fullgraph: a break would be an error
    torch.testing.assert_close(found[1][0], found[0][0], atol=2e-2 if precision == "bf16" else 1e-5, rtol=1e-4)
    torch.testing.assert_close(found[1][1], found[0][1], atol=2e-3 if precision == "bf16" else 1e-4, rtol=1e-3)


@pytest.mark.parametrize("family", FAMILIES)
def test_plain_kernels_make_one_graph_too(monkeypatch: pytest.MonkeyPatch, family: str) -> None:
    graphs = _counting(monkeypatch)
    with using("plain"):
        trainer = Trainer(model(family, "joint"), Recipe(batch_size=2, drop_path=0.0), CPU, "bf16", compile=True)
        trainer.step(_pixels(), _labels())
    assert trainer.computation.compiled and len(graphs) == 1


def test_a_short_batch_compiles_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    graphs = _counting(monkeypatch)
    adapted = model("vit", "joint")
    predictor = Predictor(adapted, CPU, "fp32", micro_batch=3, compile=True)
    plain = Predictor(adapted, CPU, "fp32", micro_batch=3)
    views = _pixels(7)[:, None]
    torch.testing.assert_close(predictor(views), plain(views), atol=1e-6, rtol=1e-5)
    assert len(graphs) == 1


@pytest.mark.parametrize("call", ["train", "predict"])
def test_where_the_compiler_fails_operations_run_one_by_one_and_it_is_told(
    monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def broken(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Callable[..., Any]:
        raise OSError("no C++ compiler")

    monkeypatch.setattr(compute, "_BACKEND", broken)
    if call == "train":
        trainer = Trainer(model("vit", "joint"), Recipe(batch_size=2), CPU, "fp32", compile=True)
        loss, _ = trainer.step(_pixels(), _labels())
        assert torch.isfinite(loss)
        computation = trainer.computation
    else:
        predictor = Predictor(model("vit", "joint"), CPU, "fp32", micro_batch=2, compile=True)
        assert predictor(_pixels()[:, None]).shape == (2, CLASSES)
        computation = predictor.computation
    assert not computation.compiled
    assert "no C++ compiler" in computation.why_not


def test_a_model_that_breaks_into_several_graphs_runs_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    _counting(monkeypatch)
    adapted = model("vit", "frozen")

    class Looks(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * 2 if x.sum().item() > 0 else x

    adapted.head.dropout = Looks()  # type: ignore[assignment]
    predictor = Predictor(adapted, CPU, "fp32", micro_batch=2, compile=True)
    assert predictor(_pixels()[:, None]).shape == (2, CLASSES)
    assert predictor.computation.why_not


def test_errors_that_are_not_the_compilers_are_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    graphs = _counting(monkeypatch)
    predictor = Predictor(model("vit", "frozen"), CPU, "fp32", micro_batch=2, compile=True)
    with pytest.raises(ValueError, match=quoting("40x40", "32x32")):
        predictor(torch.zeros(1, 1, FRAMES, 3, 40, 40, dtype=torch.uint8))
    assert not graphs
    assert predictor.computation.compiled


def test_in_fp16_the_loss_is_scaled_and_a_step_with_infinite_gradients_is_left_out() -> None:
    adapted = model("vit", "joint")
    trainer = Trainer(adapted, Recipe(batch_size=2, lr=1e-2, head_lr=1e-2), CPU, "fp16")
    scale = trainer.scaler.get_scale()
    assert scale > 1
    before = {name: p.detach().clone() for name, p in adapted.trained()}
    with torch.no_grad():
        adapted.head.linear.weight.mul_(1e30)  # the gradients overflow
        before["head.linear.weight"] = adapted.head.linear.weight.detach().clone()
    trainer.step(_pixels(), _labels())
    assert trainer.scaler.get_scale() < scale
    assert all(p.equal(before[name]) for name, p in adapted.trained())


def test_in_bf16_nothing_is_scaled() -> None:
    assert not Trainer(model("vit", "joint"), Recipe(batch_size=2), CPU, "bf16").scaler.is_enabled()
