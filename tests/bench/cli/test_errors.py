"""`bench` as a user gets it wrong: exit code 2, sentences, no traceback, nothing left on the disk."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.bench.command import Command, Said, Wording, field_of

DRY = ("run", "--backbones", "vit:tiny@none", "--strategies", "frozen", "--device", "cpu", "--dry-run")


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")


def test_every_mistake_of_a_command_at_once_and_nothing_on_the_disk(bench: Command, tmp_path: Path) -> None:
    (tmp_path / "taken").touch()
    said = bench(
        "run",
        *("--backbones", "vitt,swin:tiny@/no/such.safetensors"),
        *("--strategies", "jont,spatial"),
        *("--dataset", "moton"),
        *("--frames", "0"),
        *("--seeds", ""),
        *("--workers", "0"),
        *("--loader-workers", "-1"),
        *("--precision", "fp16"),
        *("--device", "cpu"),
        *("--epochs", "-1"),
        *("--lr", "nan"),
        *("--recipe", "drp_path=1"),
        *("--recipe", "foo"),
        *("--option", "ratio=9"),
        *("--option", "scale=1"),
        *("--data-root", "/no/such"),
        *("--plugin", "nosuch.py"),
        *("--config", "nosuch.yaml"),
        *("--out", "taken/run"),
    )
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith("bench: 19 problems; nothing was run or changed.\n")
    marks = [
        "'vitt'",
        "/no/such.safetensors",
        "'jont'",
        "'moton'",
        "frames holds '0'",
        "seeds is ''",
        "workers is 0",
        "loader_workers is -1",
        "'fp16'",
        "recipe.epochs is -1",
        "recipe.lr is 'nan'",
        "'recipe.drp_path'",
        "--recipe 'foo'",
        "option.ratio is 9",
        "option 'scale'",
        "data_root is '/no/such'",
        "plugin 'nosuch.py'",
        "config 'nosuch.yaml'",
        "out is 'taken/run'",
    ]
    for mark in marks:
        assert len([sentence for sentence in said.problems if mark in sentence]) == 1, mark
    assert len(said.problems) == len(marks)
    assert os.listdir(tmp_path) == ["taken"]


MISTAKES: list[tuple[tuple[str, ...], str]] = [
    (("--frames", ","), "frames"),
    (("--seeds", "0,x"), "seeds"),
    (("--seeds", "1e3"), "seeds"),
    (("--train-fraction", "0"), "train_fractions"),
    (("--train-fraction", "0.5,2"), "train_fractions"),
    (("--train-fraction", "abc"), "train_fractions"),
    (("--train-fraction", "1,0.1,1"), "train_fractions"),
    (("--device", "gpu"), "device"),
    (("--precision", "fp8"), "precision"),
    (("--lr", "-1"), "recipe.lr"),
    (("--lr", "inf"), "recipe.lr"),
    (("--batch-size", "0"), "recipe.batch_size"),
    (("--recipe", "crop_area=[1, 0.5]"), "recipe.crop_area"),
    (("--epochs", "abc"), "recipe.epochs"),
    (("--recipe", "epochs=true"), "recipe.epochs"),
    (("--out", "/dev/null"), "out"),
    (("--out", "full"), "out"),
    (("--config", "."), "config '.'"),
]
JOINT = ("run", "--backbones", "vit:tiny@none", "--strategies", "joint", "--device", "cpu", "--dry-run")
CONTRADICTIONS: list[tuple[tuple[str, ...], str]] = [
    (("--lr", "1e-3", "--recipe", "lr=2"), "--recipe lr=2"),
    (("--epochs", "1", "--recipe", "epochs=2"), "--recipe epochs=2"),
    (("-o", "ratio=1", "-o", "ratio=2"), "--option 'ratio=2'"),
    (("--recipe", "lr=1", "--recipe", "lr=2"), "--recipe 'lr=2'"),
    (("-o", "ratio=true"), "option.ratio"),
    (("-o", "temporal_adapters=true"), "option.temporal_adapters"),
    (("-o", "ratio=nan"), "option.ratio"),
    (("-o", "ratio=.nan"), "option.ratio"),
    (("-o", "scale=inf"), "option.scale"),
    (("--data-root", "a-file"), "data_root"),
]


@pytest.mark.parametrize(("command", "mistakes"), [(DRY, MISTAKES), (JOINT, CONTRADICTIONS)], ids=["dry", "joint"])
def test_one_mistake_is_one_sentence(
    bench: Command,
    tmp_path: Path,
    wording: Wording,
    command: tuple[str, ...],
    mistakes: list[tuple[tuple[str, ...], str]],
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").touch()
    (tmp_path / "a-file").touch()
    found = []
    for arguments, field in mistakes:
        said = bench(*command, *arguments)
        assert (said.code, said.out) == (2, "")
        assert said.err.startswith("bench: 1 problem; nothing was run or changed.\n")
        (sentence,) = said.problems
        assert field_of(sentence) == field
        found.append(sentence)
    assert sorted(os.listdir(tmp_path)) == ["a-file", "full"]
    wording(found)


def test_an_option_that_no_strategy_takes_comes_with_those_that_do(bench: Command) -> None:
    (sentence,) = bench(*DRY, "--option", "ratio=1").problems
    assert field_of(sentence) == "option 'ratio'"
    assert all(strategy in sentence for strategy in ("spatial", "temporal", "joint"))


def _starts(said: Said, *starts: str) -> None:
    """Each sentence begins as told, in whatever order, and there are no more of them."""
    assert (said.code, said.out) == (2, "")
    for start in starts:
        assert len([sentence for sentence in said.problems if sentence.startswith(start)]) == 1, (start, said.problems)
    assert len(said.problems) == len(starts), said.problems


def test_wrong_names_hide_no_wrong_number(bench: Command, tmp_path: Path) -> None:
    said = bench("run", "--device", "cpu", "--epochs", "abc", "--strategies", "jiont", "--backbones", "vti")
    _starts(
        said,
        "recipe.epochs is 'abc': expected a whole number",
        "unknown strategy 'jiont': ",
        "unknown backbone 'vti': ",
    )
    assert all(near in said.err for near in ("(did you mean 'joint'?)", "(did you mean 'vit'?)"))
    assert os.listdir(tmp_path) == []


def test_a_tower_that_is_no_transformer_is_told_with_a_wrong_name(bench: Command, tmp_path: Path) -> None:
    said = bench("run", "--device", "cpu", "--backbones", "clip:RN50@none", "--strategies", "jiont")
    _starts(said, "unknown strategy 'jiont': ", "backbone 'clip:RN50@none': ")
    assert "ModifiedResNet, expected a vision transformer" in said.err
    assert os.listdir(tmp_path) == []


def test_markup_in_a_bad_name_is_shown_as_it_is(bench: Command) -> None:
    (found,) = bench("run", "--device", "cpu", "--dry-run", "--strategies", "[red]x[/red]").problems
    assert found.startswith("unknown strategy '[red]x[/red]': ")


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "--nosuch"),
        ("list",),
        ("nosuch",),
    ],
)
def test_what_the_parser_refuses_ends_with_2_too(bench: Command, arguments: tuple[str, ...], tmp_path: Path) -> None:
    said = bench(*arguments)
    assert said.code == 2
    assert "Usage: bench" in said.err
    assert os.listdir(tmp_path) == []


def test_a_report_tells_its_format_and_its_run_at_once(bench: Command) -> None:
    said = bench("report", "nope", "--format", "xyz")
    assert said.code == 2
    assert len(said.problems) == 2
    assert said.problems[0] == "format is 'xyz': expected one of terminal, markdown, csv, json, latex, html"
    assert "'nope'" in said.problems[1]


def test_the_formats_that_are_offered_are_those_that_there_are() -> None:
    """The command line names them without importing what renders them."""
    from bench.cli.report import FORMATS
    from bench.report.formats import RENDERERS

    assert tuple(RENDERERS) == FORMATS


def test_a_picture_of_nothing_tells_everything_wrong(bench: Command, tmp_path: Path) -> None:
    (tmp_path / "a-file").touch()
    said = bench("data", "show", "motin", "--out", "a-file", "--split", "tset", "--data-root", "nosuch")
    _starts(
        said,
        "split is 'tset': ",
        "unknown data set 'motin': ",
        "out is 'a-file': ",
        "data_root is 'nosuch': ",
    )
    assert os.listdir(tmp_path) == ["a-file"]


def test_no_arguments_show_the_help(bench: Command) -> None:
    assert "report" in (said := bench()).out + said.err


def test_help_says_what_brackets_hold(bench: Command) -> None:
    text = " ".join(bench("run", "--help").out.replace("│", " ").split())
    assert "family[:model][@weights]" in text
    assert "[default: motion]" in text
    assert "[default: the latest run]" in " ".join(bench("report", "--help").out.replace("│", " ").split())


# --- listings ---


def test_lists_name_everything_and_fit_80_columns(bench: Command) -> None:
    from adapters.base import STRATEGIES
    from adapters.heads import HEADS
    from backbones.families import FAMILIES
    from bench.data.dataset import DATASETS

    for what, names in (
        ("backbones", FAMILIES.names()),
        ("strategies", STRATEGIES.names()),
        ("heads", HEADS.names()),
        ("datasets", DATASETS.names()),
    ):
        said = bench("list", what)
        assert (said.code, said.err) == (0, "")
        lines = said.out.splitlines()
        firsts = [line.split()[0] for line in lines if line and not line.startswith(" ")]
        assert set(names) <= set(firsts)
        assert all(len(line) <= 80 for line in lines)
        assert "…" not in said.out
    backbones = bench("list", "backbones").out
    assert "swin:swin_base_patch4_window7_224.ms_in22k" in backbones
    assert "family[:model][@weights]" in backbones


def test_models_of_the_libraries_are_listed_with_what_is_supported_and_why_not(bench: Command) -> None:
    said = bench("list", "backbones", "--filter", "vit:test_vit*")
    assert (said.code, said.err) == (0, "")
    lines = [line.split() for line in said.out.splitlines()]
    assert ["vit:test_vit", "r160_in1k", "yes"] in lines
    assert said.out.splitlines()[-1] == f"{len(lines) - 3} of {len(lines) - 3} supported"
    text = " ".join(bench("list", "backbones", "--filter", "PWEE_patch16_reg1").out.split())
    assert "vit:vit_pwee_patch16_reg1_gap_256 sbb_in1k no: is built of" in text
    assert text.endswith("0 of 2 supported")


def test_a_filter_that_fits_nothing_or_has_no_place_is_a_mistake(bench: Command) -> None:
    said = bench("list", "backbones", "--filter", "resnet*")
    assert said.code == 2
    assert said.problems == ["filter is 'resnet*': no model of vit, clip, swin is called so"]
    said = bench("list", "strategies", "--filter", "x")
    assert said.code == 2
    assert said.problems == ["filter is 'x': expected with backbones or recipes alone, strategies are few"]


def test_every_option_is_listed_once_with_its_default_and_its_takers(bench: Command) -> None:
    from adapters.base import STRATEGIES
    from adapters.heads import HEADS

    tables = {}
    for what, registry in (("strategies", STRATEGIES), ("heads", HEADS)):
        out = bench("list", what).out
        tables[what] = table = out[out.index("\noption ") :]
        options = {
            name: field for s in map(registry.get, registry.names()) for name, field in s.options.model_fields.items()
        }
        for name, field in options.items():
            (line,) = [line for line in table.splitlines() if line.split()[:1] == [name]]
            assert line.split()[1] == str(field.default)
    assert "spatial, temporal, joint" in next(line for line in tables["strategies"].splitlines() if line[:5] == "ratio")
    assert "attentive, attentive-time" in next(line for line in tables["heads"].splitlines() if line[:5] == "depth")
