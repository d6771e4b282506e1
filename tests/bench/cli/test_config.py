"""Flags and a YAML file: who wins, what a file may hold, and what is said of a bad one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench.cli.options import Given, assignments
from bench.cli.run import planned
from bench.errors import UserError
from bench.run.matrix import expand
from bench.spec import Request
from tests.bench.command import Wording

TINY = {"backbones": "vit:tiny@none", "device": "cpu"}


def build(flags: dict[str, Any], file: Path | None, problems: list[str]) -> Request:
    given = {name: value for name, value in flags.items() if value is not None}
    return planned(Given(Request, given, {}, problems), file)[0]


def request(tmp_path: Path, text: str, **flags: Any) -> Request:
    file = tmp_path / "config.yaml"
    file.write_text(text, encoding="utf-8")
    return build({**TINY, **flags}, file, [])


def problems(tmp_path: Path, text: str | bytes, **flags: Any) -> list[str]:
    file = tmp_path / "config.yaml"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(UserError) as error:
        build({**TINY, **flags}, file, [])
    return [sentence.replace(str(file), "FILE") for sentence in error.value.problems]


def test_every_field_can_stand_in_a_file(tmp_path: Path) -> None:
    found = request(
        tmp_path,
        f"""
        backbones: [clip:tiny@none, swin]
        strategies: joint, full
        datasets: motion
        frames: 8
        input-size: 64
        seeds: [0, 1]
        data_root: {tmp_path}
        recipe: {{lr: 3e-4, betas: [9e-1, 0.99]}}
        recipe_by_strategy: {{full: {{weight_decay: 1e-1}}}}
        options: {{ratio: 5e-1}}
        precision: bf16
        decoder: pyav
        order-test: no
        out: {tmp_path}/run
        workers: 2
        loader_workers: 1
        cache: off
        cache_limit: 1.5GB
        plugins: []
        """,
        backbones=None,
    )
    assert found == Request(
        backbones=("clip:tiny@none", "swin"),
        strategies=("joint", "full"),
        datasets=("motion",),
        frames=(8,),
        input_size=64,
        seeds=(0, 1),
        data_root=tmp_path,
        recipe={"lr": 3e-4, "betas": [0.9, 0.99]},
        recipe_by_strategy={"full": {"weight_decay": 0.1}},
        options={"ratio": 0.5},
        device="cpu",
        precision="bf16",
        decoder="pyav",
        order_test=False,
        out=tmp_path / "run",
        workers=2,
        loader_workers=1,
        cache="off",
        cache_limit=1_500_000_000,
        plugins=(),
    )


def test_flags_names_work_in_a_file(tmp_path: Path) -> None:
    found = request(tmp_path, "dataset: motion\nepochs: 3\nbatch-size: 8\nlr: 1e-3\noption: {ratio: 1}\nplugin: []\n")
    assert (found.datasets, found.options) == (("motion",), {"ratio": 1})
    assert found.recipe == {"epochs": 3, "batch_size": 8, "lr": 1e-3}


def test_flags_win_over_the_file(tmp_path: Path) -> None:
    text = "seeds: 7\nprecision: bf16\nepochs: 9\nrecipe: {dropout: 0.1}\noptions: {ratio: 1, scale: 1}\n"
    found = request(tmp_path, text, seeds="1,2", recipe={"epochs": 4}, options={"scale": 2}, precision=None)
    assert (found.seeds, found.precision) == ((1, 2), "bf16")
    assert found.recipe == {"epochs": 4, "dropout": 0.1}
    assert found.options == {"ratio": 1, "scale": 2}


def test_flags_win_over_what_a_file_says_of_single_strategies(tmp_path: Path) -> None:
    """A learning rate that is asked for on the command line is every strategy's, however the file tells them apart."""
    text = "recipe: {dropout: 0.1}\nrecipe_by_strategy: {joint: {lr: 1e-3, epochs: 5}, full: {lr: 1e-4}}\n"
    found = request(tmp_path, text, strategies="joint,full,frozen", recipe={"lr": 2e-3})
    assert {(c.strategy, c.recipe.lr) for c in expand(found.matrix).cells} == {
        (strategy, 2e-3) for strategy in ("joint", "full", "frozen")
    }
    joint = expand(found.matrix).cells[0].recipe
    assert (joint.epochs, joint.dropout) == (5, 0.1)  # what no flag names stays the file's
    without = expand(request(tmp_path, text, strategies="joint,full").matrix).cells
    assert [c.recipe.lr for c in without] == [1e-3, 1e-4]


@pytest.mark.parametrize(
    "text", ["", "# nothing\n", "---\n", "seeds:\nrecipe:\nout: ~\nrecipe_by_strategy: {joint: }\n"]
)
def test_a_name_without_a_value_is_not_given(tmp_path: Path, text: str) -> None:
    assert request(tmp_path, text) == Request(**TINY)


FILES: list[str | bytes] = [
    "- a\n- b\n",
    "seeds\n",
    "seeds: 1\nx: [1,\n",
    "a: 1\n\tb: 2\n",
    "seeds: 1\nseeds: 2\n",
    "seeds: 2024-99-99\n",
    "a: &a {b: *a}\n",
    "a: !!python/name:os.system x\n",
    "a: \x01\n",
    b"\xff\xfes\x00",
]


def test_a_file_is_yaml_1_2(tmp_path: Path) -> None:
    """Numbers need no point and no sign, a switch may be written as in any YAML, and no is a word elsewhere."""
    found = request(tmp_path, "recipe: {lr: 1e-4, flip: no, dropout: 5e-1}\norder_test: off\nstrict: yes\ncache: off\n")
    assert found.recipe == {"lr": 1e-4, "flip": "no", "dropout": 0.5}
    assert {cell.recipe.flip for cell in expand(found.matrix).cells} == {False}
    assert (found.order_test, found.strict, found.cache) == (False, True, "off")


def test_a_bad_file_is_one_sentence(tmp_path: Path, wording: Wording) -> None:
    found = []
    for text in FILES:
        (sentence,) = problems(tmp_path, text)
        assert sentence.startswith("config 'FILE' ") and "\n" not in sentence
        found.append(sentence)
    wording(found)


def test_a_missing_file_comes_with_its_neighbour(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").touch()
    missing = tmp_path / "confg.yaml"
    with pytest.raises(UserError) as error:
        build(TINY, missing, [])
    assert error.value.problems == (
        f"config '{missing}' cannot be read: No such file or directory (did you mean '{tmp_path}/config.yaml'?)",
    )
    with pytest.raises(UserError, match="Is a directory"):
        build(TINY, tmp_path, [])


def test_everything_wrong_with_a_file_and_the_flags_at_once(tmp_path: Path, wording: Wording) -> None:
    found = problems(
        tmp_path,
        """
        seeds: foo
        recipe: 3
        epochs: -1
        lr: .nan
        dataset: motion
        datasets: motion
        recipe_by_strategy: {joint: 3, full: {batch_size: 0}}
        options: {ratio: 99, 3: 4}
        workers: 0
        sedes: 3
        plugins: nosuch_module
        """,
        backbones="vitt,swin",
        strategies="jont",
        out=tmp_path / "config.yaml" / "run",
    )
    wording(found)
    assert len(found) == 15
    assert found[5].endswith("(did you mean 'seeds'?)")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["config.yaml"]


def test_the_same_thing_twice_in_a_file_is_told(tmp_path: Path) -> None:
    assert problems(tmp_path, "epochs: 1\nrecipe: {epochs: 2}\n") == [
        "config: 'epochs' is there by itself and in the recipe, expected it once"
    ]


def test_what_was_wrong_before_is_told_too() -> None:
    with pytest.raises(UserError) as error:
        build({**TINY, "seeds": "x"}, None, ["--option 'x': expected name=value"])
    assert error.value.problems == (
        "--option 'x': expected name=value",
        "seeds holds 'x': expected a whole number",
    )


def test_assignments_are_read_as_yaml() -> None:
    wrong: list[str] = []
    texts = ["a=1", " b =3e-4", "c=true", "d=[1, 2e0]", "e=x=y", "f=0x10"]
    assert assignments(texts, "--option", wrong) == {"a": 1, "b": 3e-4, "c": True, "d": [1, 2.0], "e": "x=y", "f": 16}
    assert wrong == []
    assert assignments(["a", "=1", "b=", "c=[1", "d=2024-99-99"], "--option", wrong) == {}
    assert wrong[:3] == [f"--option {text!r}: expected name=value" for text in ("a", "=1", "b=")]
    assert wrong[3].startswith("--option 'c=[1': '[1' is not a value (")
    assert wrong[4] == "--option 'd=2024-99-99': '2024-99-99' is not a value (month must be in 1..12)"
