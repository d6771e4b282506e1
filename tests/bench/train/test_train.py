"""The optimiser's groups and schedule, the step, and running out of memory."""

from __future__ import annotations

import io
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from adapters.base import STRATEGIES
from adapters.classifier import VideoClassifier
from bench.data.augment import MixupCutmix
from bench.data.transforms import normalise
from bench.spec import Precision, Recipe
from bench.train.optimiser import adamw, lr_scale, parameter_groups
from bench.train.trainer import Diverged, Trainer, fit
from tests.bench.command import Wording, quoting
from tests.models import CLASSES, FAMILIES, FRAMES, NAMES, awaken, backbone, model

CPU = torch.device("cpu")


def _recipe(**changes: object) -> Recipe:
    return Recipe(**{"epochs": 2, "batch_size": 8, "lr": 1e-2, "head_lr": 1e-2, "warmup_epochs": 0.5, **changes})


def _batch(count: int = 8, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (count, FRAMES, 3, 32, 32), dtype=torch.uint8, generator=generator)
    return pixels, torch.randint(0, CLASSES, (count,), generator=generator)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("strategy", ["frozen", "full", "joint", "timesformer"])
def test_each_trained_parameter_is_in_one_group_and_norms_and_embeddings_do_not_decay(family, strategy) -> None:
    adapted = model(family, strategy)
    recipe = _recipe(lr=1e-3, head_lr=3e-3, time_lr=5e-3)
    groups = parameter_groups(adapted, recipe)
    grouped = [id(p) for group in groups for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for _, p in adapted.trained())
    # worked out from the published rule with the modules' own types, not with the code under test
    tables = ("cls_token", "pos_embed", "class_embedding", "positional_embedding", "position_bias_table", "bias.table")
    undecayed = {id(p) for m in adapted.modules() if isinstance(m, nn.LayerNorm) for p in m.parameters()} | {
        id(p) for name, p in adapted.named_parameters() if name.endswith(tables)
    }
    for group in groups:
        for parameter in group["params"]:
            assert group["weight_decay"] == (0.0 if id(parameter) in undecayed else 0.05)
            if parameter is adapted.head.linear.weight:
                assert group["base_lr"] == 3e-3
            elif parameter is adapted.body.temporal_embedding:
                assert group["base_lr"] == 5e-3
            elif parameter is not adapted.head.linear.bias:
                assert group["base_lr"] == 1e-3


@pytest.mark.parametrize("strategy", ["full", "timesformer", "joint"])
def test_swins_tables_of_biases_over_time_and_space_do_not_decay(strategy: str) -> None:
    adapted = model("swin", strategy)
    undecayed = {id(p) for g in parameter_groups(adapted, _recipe()) if g["weight_decay"] == 0 for p in g["params"]}
    over_time = [id(block.time.bias.table) for block in adapted.body.blocks if block.time is not None]
    over_space = [id(block.module.attn.relative_position_bias_table) for block in adapted.backbone.blocks]
    assert len(over_time) == {"full": 0, "joint": 2, "timesformer": 4}[strategy]
    assert undecayed >= set(over_time)
    assert (undecayed >= set(over_space)) == (strategy != "joint")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("strategy", NAMES)
def test_what_does_not_train_stays_bit_identical(family: str, strategy: str) -> None:
    """Weight decay, drop path and dropout reach the trained parameters alone; the buffers are nobody's to change."""
    chosen = STRATEGIES.get(strategy)
    adapted = VideoClassifier(
        backbone(family), chosen, chosen.options(), classes=CLASSES, frames=FRAMES, drop_path=0.3, dropout=0.5
    )
    image = {f"backbone.{name}" for name, _ in adapted.backbone.named_parameters()}
    if strategy in ("full", "timesformer"):
        image = set()
    elif strategy != "frozen":
        norm = {id(p) for p in adapted.backbone.final_norm.parameters()}
        image -= {name for name, p in adapted.named_parameters() if id(p) in norm}
    fixed = image | {name for name, _ in adapted.named_buffers()}

    def state() -> dict[str, torch.Tensor]:
        return {name: v.detach().clone() for name, v in (*adapted.named_parameters(), *adapted.named_buffers())}

    before = state()
    trainer = Trainer(adapted, _recipe(weight_decay=1.0, drop_path=0.3, dropout=0.5), CPU, "fp32")
    trainer.scale_lr(1.0)
    for seed in range(2):
        trainer.step(*_batch(seed=seed))
    after = state()
    assert after.keys() == before.keys()
    assert fixed <= before.keys()
    for name in fixed:
        assert torch.equal(after[name], before[name]), name
    assert not torch.equal(after["head.linear.weight"], before["head.linear.weight"])


def test_the_schedule_is_a_line_then_a_cosine() -> None:
    recipe = Recipe(epochs=30, warmup_epochs=2.5, warmup_start=0.1)
    steps = 100
    assert lr_scale(recipe, 0, steps) == pytest.approx(0.1)
    # halfway through the warm-up, in the second epoch: cosine of one epoch done, times the line
    assert lr_scale(recipe, 125, steps) == pytest.approx(0.5 * (1 + math.cos(math.pi / 30)) * 0.55)
    assert lr_scale(recipe, 250, steps) == pytest.approx(0.5 * (1 + math.cos(math.pi * 2 / 30)))
    assert lr_scale(recipe, 1500, steps) == lr_scale(recipe, 1599, steps) == pytest.approx(0.5)
    assert lr_scale(recipe, 2999, steps) == pytest.approx(0.5 * (1 + math.cos(math.pi * 29 / 30)))
    stepped = recipe.model_copy(update={"schedule": "step"})
    assert lr_scale(stepped, 1550, steps) == pytest.approx(0.5 * (1 + math.cos(math.pi * 1550 / 3000)))
    assert lr_scale(stepped, 2999, steps) < 1e-5


def test_a_few_steps_learn_a_batch_by_heart() -> None:
    torch.manual_seed(0)
    trainer = Trainer(model("vit", "full"), _recipe(lr=1e-3, head_lr=1e-2), CPU, "fp32")
    clips, labels = _batch()
    losses = [trainer.step(clips, labels)[0].item() for _ in range(15)]
    assert losses[-1] < 0.3 * losses[0]


def _gradients(trainer: Trainer, clips: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
    trainer.scale_lr(0.0)
    trainer.step(clips, labels)
    return {name: p.grad.clone() for name, p in trainer.model.trained()}


def test_running_out_of_memory_halves_what_is_computed_at_once_and_not_the_batch(monkeypatch) -> None:
    clips, labels = _batch()
    whole = Trainer(model("vit", "joint"), _recipe(), CPU, "fp32")
    expected = _gradients(whole, clips, labels)

    short = Trainer(model("vit", "joint"), _recipe(), CPU, "fp32")
    forward = short.model.forward

    def starved(batch: torch.Tensor) -> torch.Tensor:
        if len(batch) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(batch)

    monkeypatch.setattr(short.model, "forward", starved)
    found = _gradients(short, clips, labels)
    assert short.micro_batch == 2
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("micro_batch", [1, 3, 4])
def test_parts_of_a_batch_with_label_smoothing_add_up_to_its_gradients(micro_batch: int) -> None:
    """Parts of unequal sizes too: a mean of their means would weigh the clips of the last one more."""
    clips, labels = _batch()
    whole, parts = (Trainer(model("vit", "joint"), _recipe(label_smoothing=0.2), CPU, "fp32") for _ in range(2))
    for trainer in (whole, parts):
        awaken(trainer.model)
    expected = _gradients(whole, clips, labels)
    parts.micro_batch = micro_batch
    found = _gradients(parts, clips, labels)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-6, rtol=1e-4)
    # and they are the gradients of torch's own smoothed loss
    plain = model("vit", "joint").train()
    awaken(plain)
    logits = plain(normalise(clips, plain.backbone.mean, plain.backbone.std))
    F.cross_entropy(logits, labels, label_smoothing=0.2).backward()
    for name, parameter in plain.trained():
        torch.testing.assert_close(found[name], parameter.grad, atol=1e-6, rtol=1e-4)


def test_mixed_labels_weigh_the_loss_and_the_largest_share_counts(monkeypatch) -> None:
    trainer = Trainer(model("vit", "frozen"), _recipe(label_smoothing=0.1), CPU, "fp32")
    clips, labels = _batch()
    logits = torch.randn(8, CLASSES, generator=torch.Generator().manual_seed(0))
    logits[range(5), labels[:5]] += 9  # five right ones
    logits[range(5, 8), labels[5:]] -= 9
    logits.requires_grad_()
    monkeypatch.setattr(trainer.model, "forward", lambda batch: logits)
    shares = 0.7 * F.one_hot(labels, CLASSES) + 0.3 * F.one_hot(labels.roll(1), CLASSES)
    loss, right = trainer.step(clips, shares)
    smooth = 0.9 * shares.double() + 0.1 / CLASSES
    expected = 0.0
    for row, target in zip(logits.detach().double().tolist(), smooth.tolist(), strict=True):
        total = math.log(sum(math.exp(value) for value in row))
        expected += sum(share * (total - value) for share, value in zip(target, row, strict=True)) / 8
    assert loss.item() == pytest.approx(expected, rel=1e-6)
    assert right == 5


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_parts_of_a_mixed_batch_add_up_to_its_gradients(kind: str, monkeypatch) -> None:
    alphas = {"mixup": 0.0, "cutmix": 0.0, kind: 1.0}
    clips, labels = MixupCutmix(**alphas, classes=CLASSES, seed=0)(*_batch(), epoch=0, step=0)
    whole, parts = (Trainer(model("vit", "joint"), _recipe(label_smoothing=0.1), CPU, "fp32") for _ in range(2))
    expected = _gradients(whole, clips, labels)
    forward = parts.model.forward

    def starved(batch: torch.Tensor) -> torch.Tensor:
        if len(batch) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(batch)

    monkeypatch.setattr(parts.model, "forward", starved)
    found = _gradients(parts, clips, labels)
    assert parts.micro_batch == 2
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-6, rtol=1e-4)


def test_where_not_even_one_clip_fits_the_error_comes_through(monkeypatch) -> None:
    trainer = Trainer(model("vit", "frozen"), _recipe(), CPU, "fp32")

    def starved(batch: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(trainer.model, "forward", starved)
    with pytest.raises(torch.OutOfMemoryError):
        trainer.step(*_batch())
    assert trainer.micro_batch == 1


def test_another_error_is_not_taken_for_memory(monkeypatch) -> None:
    trainer = Trainer(model("vit", "frozen"), _recipe(), CPU, "fp32")

    def broken(batch: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(trainer.model, "forward", broken)
    with pytest.raises(RuntimeError, match="shapes"):
        trainer.step(*_batch())
    assert trainer.micro_batch == 8


@pytest.mark.parametrize("family", FAMILIES)
def test_bf16_trains_on_the_cpu_and_keeps_what_trains_in_fp32(family: str) -> None:
    trainer = Trainer(model(family, "joint"), _recipe(), CPU, "bf16")
    frozen = {name: p.detach().clone() for name, p in trainer.model.named_parameters() if not p.requires_grad}
    loss, _ = trainer.step(*_batch())
    assert torch.isfinite(loss)
    assert {p.dtype for _, p in trainer.model.trained()} == {torch.float32}
    assert all(trainer.model.get_parameter(name).equal(before) for name, before in frozen.items())


def _fit(trainer: Trainer, batches: int) -> list[dict[str, float]]:
    lines: list[dict[str, float]] = []
    fit(
        trainer,
        lambda epoch, first: (_batch(seed=i) for i in range(first, batches)),
        3,
        lines.append,
        lambda epoch: None,
        0.0,
    )
    return lines


def test_fit_tells_every_interval() -> None:
    lines = _fit(Trainer(model("vit", "frozen"), _recipe(), CPU, "fp32"), 3)
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert lines[-1]["epoch"] == 2.0
    assert all(line["steps"] == 6 and line["clips_per_s"] > 0 for line in lines)
    lrs = [line["lr"] / 1e-2 for line in lines]
    assert lrs == pytest.approx([lr_scale(_recipe(), step, 3) for step in range(6)])


def test_a_loss_that_is_no_number_ends_the_training() -> None:
    trainer = Trainer(model("vit", "frozen"), _recipe(), CPU, "fp32")
    with torch.no_grad():
        trainer.model.head.linear.weight.fill_(float("nan"))
    with pytest.raises(Diverged, match=quoting("lr")):
        _fit(trainer, 3)


def test_a_loader_of_another_length_is_an_error() -> None:
    with pytest.raises(RuntimeError, match=quoting(2, 3)):
        _fit(Trainer(model("vit", "frozen"), _recipe(), CPU, "fp32"), 2)


def test_adamw_runs_with_the_recipes_betas() -> None:
    optimiser = adamw(model("vit", "joint"), _recipe(betas=(0.8, 0.95)))
    assert all(group["betas"] == (0.8, 0.95) for group in optimiser.param_groups)


class _Stopped(Exception):
    pass


def _trained(precision: Precision, stop: int | None = None) -> list[torch.Tensor]:
    """Return what six steps with dropout and drop path make of a model, stopped after `stop` and gone on with."""

    def trainer() -> Trainer:
        torch.manual_seed(0)
        joint = STRATEGIES.get("joint")
        shape = {"classes": CLASSES, "frames": FRAMES, "drop_path": 0.3, "dropout": 0.5}
        built = VideoClassifier(backbone("vit"), joint, joint.options(), **shape)
        return Trainer(built, _recipe(), CPU, precision)

    def run(with_: Trainer) -> None:
        def on_interval(line: dict[str, float]) -> None:
            if line["step"] == stop:
                raise _Stopped

        fit(
            with_,
            lambda epoch, first: (_batch(seed=3 * epoch + i) for i in range(first, 3)),
            3,
            on_interval,
            lambda epoch: None,
            0.0,
        )

    first = trainer()
    if stop is not None:
        with pytest.raises(_Stopped):
            run(first)
        kept = io.BytesIO()
        torch.save(first.state_dict(), kept)
        seconds = first.seconds
        torch.manual_seed(99)
        first = trainer()
        first.load_state_dict(torch.load(io.BytesIO(kept.getvalue()), weights_only=True))
        assert (first.steps, first.seconds) == (stop, seconds) and seconds > 0
        stop = None
    run(first)
    assert first.steps == 6
    state = first.optimiser.state_dict()["state"]
    moments = [value for entry in state.values() for value in entry.values()]
    return [*(p.detach() for _, p in first.model.trained()), *moments, torch.tensor(first.scaler.get_scale())]


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("stop", [3, 5])
def test_a_training_goes_on_from_its_state_as_if_nothing_had_happened(precision: Precision, stop: int) -> None:
    """Between two epochs and within one: parameters, moments and the loss's scale are equal to the last bit."""
    for found, expected in zip(_trained(precision, stop), _trained(precision), strict=True):
        assert torch.equal(found, expected)


def test_a_state_of_another_strategy_is_refused(wording: Wording) -> None:
    state = Trainer(model("vit", "frozen"), _recipe(), CPU, "fp32").state_dict()
    with pytest.raises(ValueError) as refused:
        Trainer(model("vit", "joint"), _recipe(), CPU, "fp32").load_state_dict(state)
    wording([refused.value])
