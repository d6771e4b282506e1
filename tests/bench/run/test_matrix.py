"""From axes to cells: which, in which order, with which defaults, and everything wrong with them at once."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from adapters.aim import AdapterOptions
from adapters.base import STRATEGIES, Strategy
from backbones.families import FAMILIES
from backbones.names import BackboneName
from bench.data.dataset import DATASETS
from bench.data.decode import open as opening
from bench.data.decode.open import why_unusable
from bench.data.motion.dataset import Motion
from bench.errors import UserError
from bench.run.matrix import expand
from bench.spec import Matrix
from tests.bench import make
from tests.bench.command import field_of, quotes
from tests.models import NAMES

VIT = BackboneName("vit", "tiny", "none")


def problems(**changes: Any) -> tuple[str, ...]:
    with pytest.raises(UserError) as error:
        expand(make.matrix(device="cpu", **changes))
    return error.value.problems


def cells(**changes: Any) -> list[Any]:
    return list(expand(make.matrix(device="cpu", **changes)).cells)


def test_every_combination_once_in_the_order_asked_for() -> None:
    found = cells(
        backbones="vit:tiny@none,clip:tiny@none", strategies="joint,frozen", seeds="1,0", frames="4,8", precision="bf16"
    )
    assert [(c.backbone, c.strategy, c.frames, c.seed) for c in found] == [
        (backbone, strategy, frames, seed)
        for backbone in ("vit:tiny", "clip:tiny")
        for strategy in ("joint", "frozen")
        for frames in (4, 8)
        for seed in (1, 0)
    ]
    assert {c.precision for c in found} == {"bf16"}
    assert len({c.key for c in found}) == len({c.folder for c in found}) == 16


def test_fractions_of_the_training_videos_are_an_axis_and_the_whole_leaves_the_key_as_it_was() -> None:
    asked = {"backbones": "vit:tiny@none", "strategies": "frozen,joint", "seeds": "0,1"}
    found = cells(**asked, train_fractions="0.01,1")
    assert [(c.strategy, c.train_fraction, c.seed) for c in found] == [
        (strategy, fraction, seed) for strategy in ("frozen", "joint") for fraction in (0.01, 1) for seed in (0, 1)
    ]
    assert len({c.key for c in found}) == len({c.label for c in found}) == 8
    assert [c.key for c in found if c.train_fraction == 1] == [c.key for c in cells(**asked)]
    assert len({c.model_key() for c in found}) == 2
    assert "train_fraction" in json.loads(found[0].canonical())
    assert "train_fraction" not in json.loads(found[2].canonical())


def test_options_of_heads_are_in_the_key_and_reach_the_heads_that_take_them() -> None:
    asked: dict[str, Any] = {"backbones": "clip:tiny@none", "strategies": "frozen"}
    plain, probe, time, text = cells(**asked, heads="linear,attentive,attentive-time,text")
    assert (plain.head_options, plain.key) == ({}, cells(**asked)[0].key)
    assert probe.head_options == time.head_options == {"depth": 4, "heads": 16}
    assert text.head_options == {"templates": "kinetics", "words": True}
    options = {"depth": 2, "attentive-time.depth": 3, "templates": ["a {}.", "the {}."]}
    same, *others = cells(**asked, heads="linear,attentive,attentive-time,text", options=options)
    assert same == plain
    assert [cell.head_options for cell in others] == [
        {"depth": 2, "heads": 16},
        {"depth": 3, "heads": 16},
        {"templates": "a {}.|the {}.", "words": True},
    ]
    keys = {(cell.key, cell.model_key()) for cell in (plain, probe, time, text, *others)}
    assert len(keys) == 7
    (told,) = problems(**asked, heads="attentive", options={"depth": 0})
    assert told.startswith("option.depth is 0")
    (told,) = problems(**asked, heads="attentive", options={"dpeth": 2})
    assert "did you mean 'depth'" in told
    (told,) = problems(**asked, heads="linear", options={"depth": 2})
    assert "attentive" in told
    (told,) = problems(**asked, heads="attentive", options={"heads": 7})
    assert "7 heads" in told


def test_a_head_that_reads_names_is_refused_where_there_are_none(tmp_path: Path) -> None:
    for name in ("train", "val"):
        (tmp_path / f"{name}.txt").write_text("".join(f"{name}-{label}.mp4 {label}\n" for label in range(3)))
    (tmp_path / "names.txt").write_text("jump\nrun\nsit\n")
    lists = {f"{name}_list": tmp_path / f"{name}.txt" for name in ("train", "val")}
    asked = {"backbones": "clip:tiny@none", "strategies": "frozen", "datasets": "list", "data_root": tmp_path, **lists}
    (told,) = problems(**asked, heads="text")
    assert "--class-names" in told
    assert [cell.head for cell in cells(**asked, heads="text", class_names=tmp_path / "names.txt")] == ["text"]
    assert [cell.head for cell in cells(**asked, heads="all")] == ["linear", "attentive", "attentive-time"]
    assert "text" not in {cell.head for cell in cells(backbones="vit:tiny@none", strategies="frozen", heads="all")}
    (told,) = problems(backbones="clip:tiny@bundled", strategies="frozen", heads="text")
    assert "clip:tiny" in told and "@none" in told


def test_all_is_every_registered_name() -> None:
    found = cells(backbones="all", strategies="all", datasets="motion")
    families, names = FAMILIES.names(), NAMES
    assert {"vit", "clip", "swin"} <= set(families)
    assert [(c.backbone, c.strategy) for c in found] == [(f"{f}:tiny", s) for f in families for s in names]
    assert len(cells(strategies="joint,all,joint", backbones="all,vit,vit:tiny,vit:tiny@bundled")) == len(found)


def test_defaults_that_are_filled_in_are_told() -> None:
    expansion = expand(make.matrix(backbones="clip,vit:tiny@none,swin:tiny", device="cpu"))
    clip, swin = expansion.defaults
    assert quotes(clip, "clip", "clip:tiny@bundled", "motion") and quotes(swin, "swin:tiny", "swin:tiny@bundled")
    assert (expansion.placement.type, expansion.placement.precision) == ("cpu", "fp32")
    assert [c.frames for c in expansion.cells] == [Motion.frames] * 3


def test_the_recipe_is_the_data_sets_then_the_commands_then_the_strategys() -> None:
    own = Motion().defaults(VIT, "joint").recipe
    plain, changed, special = (
        cells()[0].recipe,
        cells(recipe={"dropout": 0.1, "epochs": 4})[0].recipe,
        cells(recipe={"dropout": 0.1}, recipe_by_strategy={"joint": {"dropout": 0.2}, "full": {"lr": 1}})[0].recipe,
    )
    assert {name: getattr(plain, name) for name in own} == dict(own)
    assert (changed.dropout, changed.epochs, changed.lr) == (0.1, 4, own["lr"])
    assert special.dropout == 0.2


def test_the_heads_rate_and_the_warm_up_keep_their_share() -> None:
    own = Motion().defaults(VIT, "full").recipe
    recipe = cells(strategies="full", recipe={"lr": own["lr"] / 7, "epochs": 1})[0].recipe
    assert recipe.head_lr == pytest.approx(own["head_lr"] / 7)
    assert recipe.warmup_epochs == pytest.approx(own["warmup_epochs"] / own["epochs"])
    # as written where they are written, and no longer warm-up for a longer training
    recipe = cells(strategies="full", recipe={"lr": 1e-3, "head_lr": 2e-3, "epochs": 1, "warmup_epochs": 0.5})[0].recipe
    assert (recipe.head_lr, recipe.warmup_epochs) == (2e-3, 0.5)
    assert cells(recipe={"epochs": 40})[0].recipe.warmup_epochs == own["warmup_epochs"]
    # a number is a number, however it was written
    assert cells(strategies="full", recipe={"epochs": "1"}) == cells(strategies="full", recipe={"epochs": 1.0})
    (sentence,) = problems(strategies="full", recipe={"lr": 5})
    assert quotes(sentence, "recipe.lr is 5", "full", f"{5 * own['head_lr'] / own['lr']:g}")


def test_options_reach_the_strategies_that_take_them() -> None:
    found = {c.strategy: c.options for c in cells(strategies="frozen,spatial,joint", options={"scale": 1, "ratio": 1})}
    assert found == {
        "frozen": {},
        "spatial": {"ratio": 1.0, "blocks": "all"},
        "joint": {"ratio": 1.0, "blocks": "all", "temporal_adapters": 1, "tubelet": 1, "scale": 1.0},
    }


def test_a_cell_names_the_familys_own_tubelet() -> None:
    found = {c.backbone: c.options["tubelet"] for c in cells(backbones="vit:tiny,swin:tiny", strategies="temporal")}
    assert found == {"vit:tiny": 1, "swin:tiny": 2}
    asked = cells(backbones="swin:tiny", strategies="temporal", options={"tubelet": 1}, frames=(7,))
    assert [c.options["tubelet"] for c in asked] == [1]


def test_released_freezing_is_a_swins_alone() -> None:
    asked: dict[str, Any] = {"strategies": "spatial,joint", "options": {"released_freezing": True}}
    assert {c.options["released_freezing"] for c in cells(backbones="swin:tiny", **asked)} == {True}
    assert {c.options["released_freezing"] for c in cells(backbones="swin:tiny", strategies="joint")} == {False}
    found = problems(backbones="vit:tiny,swin:tiny,clip:tiny", **asked)
    assert len(found) == 2 and all(field_of(sentence) == "option released_freezing" for sentence in found)
    assert ["swin" in sentence for sentence in found] == [True, True]
    assert not [c for c in cells(strategies="all", backbones="vit:tiny") if "released_freezing" in c.options]


@pytest.mark.parametrize("name", ["k400", "k700", "ssv2", "diving48"])
def test_finetuning_has_timesformers_drop_path_on_real_data(name: str) -> None:
    from bench.run.matrix import _recipe

    dataset, wrong = DATASETS.get(name)(), list[str]()
    own = {s: dataset.defaults(VIT, s) for s in NAMES}
    found = {s: _recipe(make.matrix(), dataset, own[s], s, wrong) for s in own}
    assert {s: recipe.drop_path for s, (recipe, _) in found.items() if recipe is not None} == {
        "frozen": 0.2, "full": 0.1, "timesformer": 0.1, "spatial": 0.2, "temporal": 0.2, "joint": 0.2,
    }  # fmt: skip
    changed, origins = _recipe(make.matrix(recipe={"drop_path": 0.3}), dataset, own["full"], "full", wrong)
    assert changed is not None and changed.drop_path == 0.3 and not wrong
    assert own["full"].origins["recipe.drop_path"] == "recipes/strategies.yaml:finetuned"
    assert origins == {"recipe.drop_path": "recipe.drop_path"}


def test_a_drop_path_that_a_data_set_names_is_that_of_every_strategy() -> None:
    assert {cell.recipe.drop_path for cell in cells(strategies="full,joint")} == {0.0}  # of motion


def test_frames_that_are_no_whole_tubelets_and_tubelets_that_are_not_published_are_told_at_once() -> None:
    asked = {"backbones": "vit:tiny,swin:tiny", "strategies": "frozen,temporal,joint", "frames": (4, 5)}
    for problem, strategy in zip(problems(**asked), ("temporal", "joint"), strict=True):
        assert quotes(problem, "frames is 5", strategy, "swin", 2, 2, "tubelet=1")
    (tubelet,) = problems(**{**asked, "frames": (4,)}, options={"tubelet": 2})
    assert quotes(tubelet, "option tubelet is 2", "vit", 1)


def test_weights_and_data_root_are_named_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "w.safetensors").touch()
    monkeypatch.chdir(tmp_path)
    (cell,) = cells(backbones="vit:tiny@w.safetensors", data_root=".")
    assert (cell.weights, cell.data.root) == (str(tmp_path / "w.safetensors"), tmp_path)


def test_everything_wrong_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    found = problems(
        backbones="vitt,vit:tiny@nosuch,:tiny,swin:tiny@/no/such.safetensors",
        strategies="jont,spatial",
        datasets="moton",
        data_root=tmp_path / "vidoes",
        recipe={"epochs": -1, "drp_path": 1},
        recipe_by_strategy={"joint": {"lr": 99}, "fulll": {}},
        options={"ratio": 9, "scale": 1, "ratoi": 1},
        precision="fp16",
    )
    strategies, options = ", ".join(STRATEGIES.names()), "ratio, blocks, released_freezing"
    expected: list[tuple[object, ...]] = [
        ("strategy", "'jont'", strategies, "'joint'"),
        ("'moton'", ", ".join(DATASETS.names()), "'motion'"),
        (f"data_root is '{tmp_path}/vidoes'", f"'{tmp_path}/videos'"),
        ("recipe_by_strategy", "'fulll'", strategies, "'full'"),
        ("recipe.epochs is -1", 0),
        ("recipe_by_strategy.joint.lr is 99", 10),
        ("option 'scale'", "joint, zeroi2v", options),
        ("option 'ratoi'", options, "'ratio'"),
        ("option.ratio is 9", 4),
        ("precision is 'fp16'", "fp32", "bf16"),
        ("backbone", "'vitt'", ", ".join(FAMILIES.names()), "'vit'"),
        ("backbone 'vit:tiny@nosuch'", "'nosuch'", "bundled, none"),
        ("backbone ':tiny'", "clip:ViT-L-14@openai"),
        ("backbone 'swin:tiny@/no/such.safetensors'", "/no/such.safetensors"),
    ]
    for sentence, values in zip([one for one in found if "drp_path" not in one], expected, strict=True):
        assert quotes(sentence, *values)
    assert len([sentence for sentence in found if quotes(sentence, "recipe.drp_path", "'drop_path'")]) == 1


def test_a_wrong_name_hides_no_wrong_value() -> None:
    """Nothing of the recipe and the options reaches a cell where there is no cell; it is told all the same."""
    assert quotes(problems(backbones="vitt", recipe={"epochs": -1})[0], "recipe.epochs is -1", 0)
    found = problems(strategies="jont", options={"ratio": 9, "scael": 1})
    assert any(quotes(sentence, "option.ratio is 9") for sentence in found)
    assert any(quotes(sentence, "'scael'", "'scale'") for sentence in found)


def test_all_is_suggested() -> None:
    (sentence,) = problems(strategies="ALL")
    assert quotes(sentence, "'ALL'", "'all'")


@pytest.mark.parametrize("name", ["x" * 300, "a\nb", "", "~nosuchuser/videos"])
def test_odd_folders_are_missing_folders(name: str) -> None:
    sentences = problems(data_root=f"/nosuch/{name}" if name else "/nosuch")
    assert {field_of(sentence) for sentence in sentences} == {"data_root"}


def test_a_data_set_whose_labels_name_directions_is_not_flipped() -> None:
    (sentence,) = problems(recipe={"flip": True})
    assert quotes(sentence, "recipe.flip is True", "motion", "false")


@pytest.fixture
def picky() -> Iterator[None]:
    class Picky(Strategy):
        name = "picky"
        summary = "takes ViTs alone"
        options = AdapterOptions

        def refuses(self, backbone: Any) -> str | None:
            assert all(parameter.is_meta for parameter in backbone.parameters())
            return None if type(backbone).__name__ == "ViT" else "it needs a CLS token"

    STRATEGIES.names()
    STRATEGIES.add("picky", Picky())
    yield
    del STRATEGIES._entries["picky"]


@pytest.mark.usefixtures("picky")
def test_impossible_combinations_are_told() -> None:
    swin, clip = problems(backbones="vit,swin,clip", strategies="picky,frozen")
    assert quotes(swin, "swin:tiny", "picky", "it needs a CLS token")
    assert quotes(clip, "clip:tiny", "picky", "it needs a CLS token")
    assert len(cells(strategies="picky")) == 1


def test_field_is_every_strategy_that_a_backbone_takes() -> None:
    """Of a group, strategies that a backbone does not take are told; one that was named is a mistake."""
    found = expand(make.matrix(backbones="vit:tiny,swin:tiny", strategies="field", device="cpu"))
    by_family: dict[str, list[str]] = {}
    for cell in found.cells:
        by_family.setdefault(cell.backbone_name.family, []).append(cell.strategy)
    assert tuple(by_family["vit"]) == STRATEGIES.names()
    refused = set(STRATEGIES.names()) - set(by_family["swin"])
    assert refused == {"vpt", "evl"}
    assert all(any(quotes(note, "swin:tiny", strategy) for note in found.defaults) for strategy in refused)
    assert len([note for note in found.defaults if field_of(note) == "swin:tiny"]) == 2
    assert len(problems(backbones="vit:tiny,swin:tiny", strategies="field,vpt")) == 1


def test_several_data_sets_each_have_their_own_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    class Still(Motion):
        name = "still"
        frames = 4
        flip = True
        recipes = "mine: {recipe: {epochs: 3, flip: true}}"

    DATASETS.names()
    monkeypatch.setitem(DATASETS._entries, "still", Still)
    found = cells(backbones="vit", datasets="motion,still")
    assert [(c.dataset, c.frames, c.recipe.epochs, c.recipe.flip) for c in found] == [
        ("motion", 8, 2, False),
        ("still", 4, 3, True),
    ]
    (default,) = expand(Matrix(backbones="vit", datasets="still", device="cpu")).defaults
    assert quotes(default, "vit", "vit:tiny@bundled", "still")


def test_a_decoder_that_is_not_there_is_told_beside_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "find_spec", lambda name: None if name == "torchcodec" else "there")
    why_unusable.cache_clear()
    found = problems(decoder="torchcodec", strategies="jont")
    why_unusable.cache_clear()
    assert len(found) == 2
    assert len([one for one in found if quotes(one, "decoder is 'torchcodec'", "decord, pyav")]) == 1
    assert {cell.decoder for cell in cells(decoder="pyav")} == {"pyav"} and cells()[0].decoder == "auto"
    assert cells(decoder="pyav")[0].key != cells()[0].key
