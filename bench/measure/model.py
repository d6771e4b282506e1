"""All the measurements of a model: counts, speed, memory."""

from __future__ import annotations

import torch

from adapters.classifier import VideoClassifier
from backbones.kernels.switch import kernels
from bench.measure import gpu
from bench.measure.counts import macs
from bench.measure.machine import device_name, others_load, versions
from bench.measure.params import count
from bench.measure.result import Measured
from bench.measure.speed import peak, timed
from bench.spec import Precision, Recipe
from bench.train.evaluate import Predictor
from bench.train.trainer import Trainer
from bench.version import commit


def measure(
    model: VideoClassifier,
    recipe: Recipe,
    device: torch.device,
    precision: Precision,
    *,
    compile: bool = False,
    checkpoint_activations: bool = False,
) -> Measured:
    """Measure a freshly built model; its weights are changed by the training steps that are timed.

    Training is timed on the optimiser step that trains a cell, inference on the call that evaluates it, both on
    batches of the recipe's size, of random uint8 pixels that lie in the host's memory. Batches that memory has no room
    for are computed in parts, as in training.

    Raises:
        UncountedOperation: see `bench.measure.counts`.
        torch.OutOfMemoryError: not even one clip fits.
    """
    busy = others_load() if device.type == "cpu" else 0.0
    others = gpu.before(device) if device.type == "cuda" else None
    parameters, trained = count(model)
    view_macs = macs(model.to(device))  # the trace computes a view, which a GPU does at once
    generator = torch.Generator().manual_seed(0)
    size, batch = model.backbone.input_size, recipe.batch_size
    clips = torch.randint(0, 256, (batch, model.frames, 3, size, size), dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, model.classes, (batch,), generator=generator)
    if device.type == "cuda":
        clips, labels = clips.pin_memory(), labels.pin_memory()  # as the loaders' batches are

    predictor = Predictor(model, device, precision, micro_batch=batch, compile=compile)
    views = clips[:, None]
    warmup = 3 if compile else 1
    inference = timed(lambda: predictor(views), device, least_warmup=warmup)
    resident = [*model.parameters(), *model.buffers(), clips, labels]
    inference_bytes = peak(lambda: predictor(views), device, resident)

    trainer = Trainer(model, recipe, device, precision, compile=compile, checkpoint_activations=checkpoint_activations)
    trainer.scale_lr(0.0)  # timed steps need not move the weights
    training, training_bytes = None, None
    if trained:  # else there is no training to measure
        training = timed(lambda: trainer.step(clips, labels), device, least_warmup=warmup)
        trainer.optimiser.zero_grad(set_to_none=True)
        state = [v for held in trainer.optimiser.state.values() for v in held.values() if isinstance(v, torch.Tensor)]
        training_bytes = peak(lambda: trainer.step(clips, labels), device, [*resident, *state])
    compiled = trainer.computation.compiled and predictor.computation.compiled
    timings = [(inference, predictor), *([(training, trainer)] if training else [])]
    compile_seconds = sum(timing.first_beyond for timing, by in timings if by.computation.compiled)

    return Measured(
        params=parameters,
        trained_params=trained,
        macs_view=view_macs,
        train_clips_per_s=None if training is None else batch / training.median,
        train_spread=None if training is None else training.spread,
        train_repeats=None if training is None else training.repeats,
        infer_clips_per_s=batch / inference.median,
        infer_spread=inference.spread,
        infer_repeats=inference.repeats,
        train_ms=None if training is None else 1e3 * training.median,
        infer_ms=1e3 * inference.median,
        warmup_seconds=sum(timing.warmup_seconds for timing, _ in timings) - compile_seconds,
        compiled=compiled,
        why_not_compiled=trainer.computation.why_not or predictor.computation.why_not,
        compile_seconds=compile_seconds,
        kernels=kernels(),
        train_memory_bytes=training_bytes,
        infer_memory_bytes=inference_bytes,
        batch_size=batch,
        micro_batch=min(trainer.micro_batch, predictor.micro_batch),
        threads=torch.get_num_threads(),
        device=device_name(str(device)),
        busy_cores=busy,
        gpu=None if others is None else gpu.during(others, lambda: trainer.step(clips, labels), device),
        versions=versions(),
        commit=commit()[0],
    )
