"""From a request for profiles to the profiles, in this process."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError

from adapters.base import STRATEGIES
from adapters.heads import HEADS
from backbones.names import BackboneName
from bench.data.dataset import DATASETS
from bench.errors import UserError
from bench.measure.machine import exclusive_machine_lock
from bench.measure.placement import Placement
from bench.measure.result import Measured
from bench.plugins import load as load_plugins
from bench.run.profile_result import Conditions, Profile, Subject
from bench.run.profile_weights import stand_in, without_weights
from bench.run.provenance import Stopwatch
from bench.run.selection import (
    brought_options,
    chosen_backbones,
    chosen_options,
    chosen_size,
    fitted_options,
    names,
    placement_of,
    refusal,
)
from bench.spec import FrameCounts, FrozenModel, InputSize, Names, Plugins, Recipe, device_name, problems_of
from bench.text import counted

if TYPE_CHECKING:
    from adapters.classifier import VideoClassifier

# whose published setting the whole table has: 8 frames, a Swin's 32
_PUBLISHED = "k400"
# of the training whose step is timed: AIM trains 8 clips a GPU; a CPU would take minutes a step
_BATCH_ON_GPU, _BATCH_ON_CPU = 8, 1


def _views(value: Any) -> Any:
    found = re.fullmatch(r"\s*(\d{1,3})\s*[x×]\s*(\d{1,3})\s*", value) if isinstance(value, str) else None
    if found is None or not (views := (int(found[1]), int(found[2])))[0] * views[1]:
        raise ValueError("expected clips x crops, such as 3x1")
    return views


class ProfileRequest(FrozenModel):
    """The fields of `bench profile`."""

    backbones: Names
    strategies: Names
    frames: FrameCounts = Field((), description="empty: 8; of the whole table each backbone's published ones")
    input_size: InputSize = None
    classes: int = Field(400, ge=1, le=1_000_000)
    views: Annotated[tuple[int, int] | None, BeforeValidator(_views)] = Field(
        None, description="None: 3x1; of the whole table each backbone's published ones"
    )
    options: dict[str, Any] = Field(default_factory=dict)
    device: Annotated[str, AfterValidator(device_name)] = "auto"
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    batch_size: int | None = Field(None, ge=1)
    compile: bool = False
    checkpoint_activations: bool = False
    timing: bool = True
    plugins: Plugins = ()
    whole: bool = Field(False, description="the whole table: no model that fails ends it, random weights by default")


@dataclass(frozen=True)
class Plan:
    """The models of a request, where they are timed, and the defaults that were filled in, in words."""

    subjects: tuple[Subject, ...]
    placement: Placement | None
    batch_size: int
    defaults: tuple[str, ...]
    whole: bool = False
    compile: bool = False
    checkpoint_activations: bool = False

    @property
    def conditions(self) -> Conditions | None:
        """Conditions that all speeds have in common; None where none is measured."""
        if self.placement is None:
            return None
        from bench.measure.machine import cores
        from bench.measure.machine import device_name as named

        return Conditions(
            named(self.placement.torch_name),
            cores(),
            self.placement.precision,
            self.batch_size,
            self.compile,
            self.checkpoint_activations,
        )


def request_of(fields: Mapping[str, Any], problems: list[str]) -> ProfileRequest:
    """A request from the fields that were given; those that are wrong are told, and their defaults stand in."""
    try:
        return ProfileRequest(**fields)
    except ValidationError as error:
        problems += problems_of(error, known=tuple(ProfileRequest.model_fields))
        wrong = {found["loc"][0] for found in error.errors()}
        right = {name: value for name, value in fields.items() if name not in wrong}
        return ProfileRequest(**{"backbones": "vit:tiny@none", "strategies": "frozen", **right})


def plan(request: ProfileRequest, problems: list[str]) -> Plan:
    """The models of a request.

    Raises:
        UserError: `problems`, every unknown name, impossible value and impossible combination.
    """
    problems = list(problems)
    defaults: list[str] = []
    try:
        load_plugins(request.plugins)
    except UserError as error:
        problems += error.problems
    strategies = [STRATEGIES.get(name) for name in names(request.strategies, STRATEGIES, problems)]
    options = chosen_options(request.options, strategies, problems)
    asked = without_weights(request.backbones) if request.whole else request.backbones
    backbones = chosen_backbones(asked, "base", "", problems, defaults)
    placement = placement_of(request.device, request.precision, problems) if request.timing else None
    published = DATASETS.get(_PUBLISHED)() if request.whole else None
    sizes = {backbone: chosen_size(backbone, request.input_size, problems) for backbone in backbones}
    subjects = []
    for backbone, strategy in product(backbones, strategies):
        if told := refusal(strategy, HEADS.get("linear"), backbone, sizes[backbone]):
            refused = defaults if request.whole else problems
            refused.append(told)
        elif strategy.name in options:
            frames, views, taken = request.frames or (8,), request.views or (3, 1), options[strategy.name]
            if published is not None:
                own = published.defaults(backbone, strategy.name)
                frames, views = request.frames or (own.frames,), request.views or (own.views.clips, own.views.crops)
                taken = {**taken, **brought_options(own, published.name, backbone, strategy, request.options, defaults)}
            taken = fitted_options(taken, strategy, backbone.family, frames, problems)
            size = sizes[backbone]
            subjects += [
                Subject(backbone, strategy.name, taken, count, request.classes, *views, size) for count in frames
            ]
    if problems:
        raise UserError(problems)
    if request.whole:
        stood = {backbone: stand_in(backbone) for backbone in backbones}
        subjects = [replace(each, backbone=stood[each.backbone][0], note=stood[each.backbone][1]) for each in subjects]
    default = _BATCH_ON_CPU if placement is not None and placement.type == "cpu" else _BATCH_ON_GPU
    assumed = tuple(dict.fromkeys(defaults))
    return Plan(
        tuple(subjects),
        placement,
        request.batch_size or default,
        assumed,
        request.whole,
        request.compile,
        request.checkpoint_activations,
    )


def counted_profiles(chosen: Plan) -> list[Profile]:
    """The counts of each model of a plan, and under what conditions it will be measured.

    Of a whole table, a model that cannot be counted says so in its footnotes and has failed.

    Raises:
        UserError: models that cannot be built or counted, weights that cannot be had; never of a whole table.
    """
    problems: list[str] = []
    conditions = chosen.conditions
    found = []
    for subject in chosen.subjects:
        told: list[str] = []
        profile = _counted(subject, told)
        problems += told
        if profile is None:
            profile = Profile(subject, {}, {}, footnotes=tuple(told), failed=True)
        found.append(replace(profile, conditions=conditions))
    if chosen.whole:
        return found
    if chosen.placement is not None:
        problems += _unusable_weights(chosen.subjects)
    if problems:
        raise UserError(problems)
    return found


def profiles(
    chosen: Plan,
    counted: Sequence[Profile] | None = None,
    known: Callable[[Profile], Profile | None] = lambda _: None,
    on_wait: Callable[[], None] = lambda: None,
) -> Iterator[Profile]:
    """The profile of each model of a plan, one after the other; one that cannot be timed says so and ends no other.

    Args:
        counted: what `counted_profiles` made of the plan; made here where it is not given.
        known: the profile of a model that was measured before; None where it was not.
        on_wait: called where another command is measuring on this machine.

    Raises:
        UserError: models that cannot be built or counted, weights that cannot be had. Nothing was timed then.
    """
    for profile in counted_profiles(chosen) if counted is None else counted:
        if profile.failed or chosen.placement is None:
            yield profile
        elif (before := known(profile)) is not None:
            yield before
        else:
            with exclusive_machine_lock(on_wait):
                timed = _timed(profile, chosen, chosen.placement)
            yield timed


def _counted(subject: Subject, problems: list[str]) -> Profile | None:
    from bench.measure.counts import macs_by_part
    from bench.measure.params import count_by_part
    from bench.run.counts import without_numbers

    try:
        return without_numbers(
            lambda: _build(subject, "none", Recipe()),
            lambda model: Profile(subject, macs_by_part(model), count_by_part(model)),
        )
    except Exception as error:  # a plugin's code can raise anything
        problems.append(f"{subject.label} cannot be counted: {_line(error)}")
        return None


def _unusable_weights(subjects: Sequence[Subject]) -> list[str]:
    """Load the weights of each backbone once, as far as they come from outside."""
    from backbones.families import build
    from backbones.names import UnsupportedModel, WeightsError

    problems = []
    for name in dict.fromkeys(subject.backbone for subject in subjects):
        if name.random or (name.model == "tiny" and name.file is None):
            continue
        try:
            build(name)
        except (UnsupportedModel, WeightsError) as error:
            problems.append(f"{error}; {name.architecture}@none has random weights, --no-timing needs none")
    return problems


def _timed(profile: Profile, chosen: Plan, placement: Placement) -> Profile:
    from bench.measure.placement import bf16_notes
    from bench.measure.result import footnotes as measured_footnotes
    from bench.train.compute import is_out_of_memory

    notes = [profile.subject.note] if profile.subject.note else []
    if profile.subject.backbone.random and not notes:
        notes.append("random weights (@none), not pretrained")
    profile = replace(profile, date=Stopwatch().started)
    try:
        measured, unrepeatable, assumed = _measured(profile.subject, chosen, placement)
    except Exception as error:  # a plugin's code can raise anything
        if is_out_of_memory(error):
            notes.append(f"memory ran out: {placement.torch_name} has no room for one clip")
        else:
            notes.append(f"could not be timed: {_line(error)}")
        return replace(profile, footnotes=tuple(notes), failed=True)
    if measured.micro_batch < chosen.batch_size:
        notes.append(
            f"memory ran out: batches of {chosen.batch_size} computed {counted(measured.micro_batch, 'clip')} at a time"
        )
    if unrepeatable:
        notes.append(f"not repeatable to the bit: {unrepeatable}")
    notes += [*assumed, *bf16_notes(placement), *measured_footnotes(measured)]
    return replace(profile, measured=measured, footnotes=tuple(notes))


def _build(subject: Subject, weights: str, recipe: Recipe) -> VideoClassifier:
    """The model, on torch's default device. Raises UnsupportedModel and WeightsError."""
    import torch

    from adapters.classifier import VideoClassifier
    from backbones.families import build

    torch.manual_seed(0)
    strategy = STRATEGIES.get(subject.strategy)
    return VideoClassifier(
        build(BackboneName(subject.backbone.family, subject.backbone.model, weights), subject.input_size),
        strategy,
        strategy.options(**subject.options),
        classes=subject.classes,
        frames=subject.frames,
        drop_path=recipe.drop_path,
        dropout=recipe.dropout,
    )


def _measured(subject: Subject, chosen: Plan, placement: Placement) -> tuple[Measured, str, tuple[str, ...]]:
    """Speed and memory, with the kernels and threads that a run's cells are measured with; which kernels are not, and
    what was assumed of the weights.

    Raises whatever building and running the model raises.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # deterministic matrix products on CUDA
    import torch

    from bench.measure import model as measuring
    from bench.measure.machine import cores
    from bench.run.cell import make_repeatable, why_unrepeatable

    threads = torch.get_num_threads()
    device = torch.device(placement.torch_name)
    recipe = Recipe(batch_size=chosen.batch_size)
    unrepeatable = ""
    while True:
        torch.set_num_threads(cores())
        try:
            make_repeatable(0, strict=not unrepeatable)
            model = _build(subject, subject.backbone.weights, recipe)
            measured = measuring.measure(
                model,
                recipe,
                device,
                placement.precision,
                compile=chosen.compile,
                checkpoint_activations=chosen.checkpoint_activations,
            )
            return measured, unrepeatable, model.backbone.notes
        except RuntimeError as error:
            if unrepeatable or not (unrepeatable := why_unrepeatable(error)):
                raise
        finally:
            torch.set_num_threads(threads)
            torch.use_deterministic_algorithms(False)
            if device.type == "cuda":
                torch.cuda.empty_cache()


def _line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
