"""An evaluation as names and values below each other, and as a record."""

from __future__ import annotations

from bench.report.formats import render_evaluation
from bench.report.records import record
from tests.bench import make


def test_values_stand_below_each_other() -> None:
    lines = render_evaluation(make.evaluated(top5=None, top1_shuffled=None, footnotes=["a\x1b[2J\nb"])).splitlines()
    found = {line[:14].strip(): line[14:] for line in lines[:-1]}
    assert found["top-1 %"] == "61.25" and found["top-5 %"] == "-" and "shuffled %" not in found
    assert found["GMACs"] == "0.123 a view, 0.741 all 6"
    assert lines[-1] == "note: a\\x1b[2J b"


def test_a_record_counts_in_whole_numbers_and_names_the_file() -> None:
    found = record(make.evaluated())
    assert (found["params"], found["macs_view"], found["macs_total"]) == (1_234_567, 123_456_789, 6 * 123_456_789)
    assert (found["model_file"], found["layout"], found["top1"]) == ("some/adapter.safetensors", "aim-bench", 61.25)
    assert (found["measured"], found["parts"], found["provenance"]["threads"]) == (None, {}, 2)
