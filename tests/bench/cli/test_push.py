"""`bench push` to a stand-in for the Hub: what is uploaded, what the card says, and what is refused."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backbones.weights import digest
from bench.report.model_card import escaped
from bench.run.build import classifier
from bench.run.model_files.adapter_file import pack
from bench.run.store import ADAPTER, Run
from bench.spec import Cell
from bench.yaml_files import parse
from tests.bench import make
from tests.bench.command import Command, quotes
from tests.bench.hub_server import TOKEN, HubServer

HOSTILE = (
    "<script>alert(1)</script>",
    "![x](http://evil.example/x.png)",
    "a|b\n# heading",
    "- item",
    "`code` **bold** [link](javascript:alert)",
    "&lt;b&gt; www.evil.example",
    "1. one",
    "plain name",
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Cell]:
    """A run with a cell that looks trained, of classes with hostile names."""
    cell = make.cell(strategy="frozen", options={}, weights="none")
    run = Run(tmp_path_factory.mktemp("results") / "table1")
    run.open(make.matrix(), [cell, make.cell(seed=1)], "bench run", {})
    model = classifier(cell, len(HOSTILE))
    (run.cell_folder(cell) / ADAPTER).write_bytes(pack(model, cell, HOSTILE, digest(model.backbone)))
    run.write(make.done(cell, footnotes=["decoded by <b>pyav</b>"], top1=61.25))
    return run, cell


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    with HubServer() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


def test_the_adapter_its_card_and_the_cell_are_uploaded(
    bench: Command, trained: tuple[Run, Cell], hub: HubServer, tmp_path: Path
) -> None:
    run, cell = trained
    said = bench("push", f"{run.folder}/{cell.key}", "user/video-adapter", "--out", tmp_path / "card")
    assert said.code == 0, said.err
    assert said.out.split() == [f"{hub.url}/user/video-adapter/commit/{'a' * 40}"]
    assert [(each["organization"], each["name"]) for each in hub.created] == [("user", "video-adapter")]
    assert "private" not in hub.created[0].values() and not hub.branches
    files = hub.of("user/video-adapter")
    assert files.keys() == {"README.md", ADAPTER, "cell.json"}
    assert files[ADAPTER] == (run.cell_folder(cell) / ADAPTER).read_bytes()
    assert Cell.model_validate_json(files["cell.json"]).key == cell.key
    assert files == {path.name: path.read_bytes() for path in (tmp_path / "card").iterdir()}
    assert len(hub.messages) == 1 and quotes(hub.messages[0], cell.label)


def test_a_private_repository_and_a_branch(
    bench: Command, trained: tuple[Run, Cell], hub: HubServer, tmp_path: Path
) -> None:
    run, cell = trained
    asked = ("--private", "--revision", "trial", "--out", tmp_path / "card")
    assert bench("push", run.cell_folder(cell), "user/adapter", *asked).code == 0
    assert "private" in hub.created[0].values() or hub.created[0].get("private") is True
    assert hub.branches == ["trial"]
    assert hub.of("user/adapter", "trial").keys() == {"README.md", ADAPTER, "cell.json"}
    assert b"--revision trial" in hub.of("user/adapter", "trial")["README.md"]
    assert not hub.of("user/adapter")


def test_a_dry_run_writes_the_folder_alone_and_needs_no_token(
    bench: Command, trained: tuple[Run, Cell], hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, cell = trained
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    said = bench("push", run.cell_folder(cell), "user/adapter", "--dry-run")
    assert said.code == 0, said.err
    folder = Path(said.out.strip())
    assert folder == run.cell_folder(cell) / "hub" and not hub.created
    card = (folder / "README.md").read_text()
    head, _, body = card.removeprefix("---\n").partition("\n---\n")
    about: dict[str, Any] = parse(head)
    assert about["library_name"] == "aim-bench" and "license" not in about
    assert {"video-classification", "frozen", "motion"} <= set(about["tags"])
    (header,) = [line for line in body.splitlines() if line.startswith("| backbone ")]
    row = body.splitlines()[body.splitlines().index(header) + 2]
    assert "61.2" in row and "frozen" in row
    assert "bench predict adapter video.mp4" in body and "bench eval --checkpoint adapter" in body
    assert cell.key in body and "ab" * 32 in body and "license" in body
    assert bench("push", run.cell_folder(cell), "user/adapter", "--dry-run").code == 0  # once more, over itself


def test_names_of_classes_are_text_and_nothing_else(bench: Command, trained: tuple[Run, Cell], tmp_path: Path) -> None:
    run, cell = trained
    assert bench("push", run.cell_folder(cell), "user/a", "--dry-run", "--out", tmp_path / "card").code == 0
    card = (tmp_path / "card" / "README.md").read_text()
    lines = card[card.index("## Classes") :].strip().splitlines()[2:]
    assert len(lines) == len(HOSTILE)
    for index, (line, name) in enumerate(zip(lines, HOSTILE, strict=True)):
        assert line == f"{index}. {escaped(name)}"
    assert "<script" not in card and "<b>" not in card and "http://evil" not in card and "www.evil" not in card
    assert not re.search(r"(?<!\\)[*`\[]", "\n".join(lines))
    assert lines[-2:] == ["6. 1\\. one", "7. plain name"] and lines[3] == "3. \\- item"


def test_mistakes_are_told_together(
    bench: Command, trained: tuple[Run, Cell], hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _ = trained
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    said = bench("push", f"{run.folder}/{make.cell(seed=1).key}", "no slash")
    assert said.code == 2 and len(said.problems) == 3 and not hub.created
    name, token, cell = said.problems
    assert quotes(name, "no slash", "user/name") and quotes(token, "HF_TOKEN") and quotes(cell, ADAPTER)
    for bad in ("user/", "/name", "a/b/c", "user/a--b", "user/.x", "user/a b", "us\ner/a"):
        assert quotes(bench("push", run.folder, bad, "--dry-run").problems[0], "user/name"), bad


@pytest.mark.parametrize("why", ["token", "nobody"])
def test_a_refusal_is_one_sentence(
    bench: Command, trained: tuple[Run, Cell], hub: HubServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, why: str
) -> None:
    run, cell = trained
    if why == "token":
        monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    else:
        with socket.socket() as free:  # nobody listens there
            free.bind(("127.0.0.1", 0))
            monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{free.getsockname()[1]}")
    said = bench("push", run.cell_folder(cell), "user/adapter", "--out", tmp_path / "card")
    assert said.code == 2 and not hub.files
    (problem,) = said.problems
    assert quotes(problem, "user/adapter") and "127.0.0.1" in problem


def test_a_folder_of_something_else_is_left_alone(bench: Command, trained: tuple[Run, Cell], tmp_path: Path) -> None:
    run, cell = trained
    (tmp_path / "thesis.tex").write_text("mine")
    said = bench("push", run.cell_folder(cell), "user/adapter", "--dry-run", "--out", tmp_path)
    assert said.code == 2 and quotes(said.problems[0], str(tmp_path), "thesis.tex")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
