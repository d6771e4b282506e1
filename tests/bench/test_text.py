"""Text for people: what a terminal gets, counted nouns, small numbers."""

from __future__ import annotations

import math

import pytest

from bench.text import byte_size, counted, duration, indented, one_line, quantity, shortened, visible


def test_nothing_reaches_a_terminal_but_letters_and_line_breaks() -> None:
    for char in map(chr, range(0x3000)):
        harmless = char.isprintable() or char == "\n"
        assert visible(char) == char if harmless else visible(char).startswith("\\") and visible(char).isascii()
    assert visible("\x1b[2Jé\tx\r\n 模\u202e") == "\\x1b[2Jé\\tx\\r\n 模\\u202e"
    assert one_line(" a\n  b\x1b \t c") == "a b\\x1b c"
    assert indented("a\nb\n  c", 4) == "a\n    b\n      c"


@pytest.mark.parametrize("text", ["a" * 100, "\x1b" * 100, "é\n" * 50, "a" * 40 + "\u202e" * 60])
def test_a_long_text_loses_its_middle(text: str) -> None:
    for longest in (40, 60, 99):
        found = shortened(text, longest)
        assert len(found) <= longest and " (shortened) " in found
        assert visible(text).startswith(found.partition(" ... ")[0])
        assert visible(text).endswith(found.rpartition(" ... ")[2])
    assert shortened(text, 1000) == visible(text)


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 epochs"), (1, "1 epoch"), (2, "2 epochs"), (1500, "1,500 epochs")], ids=str
)
def test_a_noun_is_counted(count: int, text: str) -> None:
    assert counted(count, "epoch") == text
    assert counted(count, "class", "classes") == text.replace("epochs", "classes").replace("epoch", "class")


@pytest.mark.parametrize("digits", [0, 2, 3])
def test_a_small_number_shows_three_digits_that_count(digits: int) -> None:
    """Against the text of the number in scientific notation, with three digits."""
    for value in (0.000579, 0.0123456, 0.1, 0.98765, 1.0, 9.87654, 57.123, 123.456, 98765.4, 1.5e-9):
        shown = quantity(value, digits)
        assert "e" not in shown
        decimals = len(shown.partition(".")[2])
        assert decimals >= digits
        assert abs(float(shown) - value) <= 0.5 * 10**-decimals * (1 + 1e-9)
        assert f"{float(shown):.2e}" == f"{value:.2e}"
        digits_shown = shown.replace(".", "").lstrip("0")
        assert len(digits_shown) >= 3
        assert decimals == digits or len(digits_shown) == 3
    assert quantity(579 / 1e6, digits) == "0.000579"
    assert quantity(0, digits) == quantity(0.0, digits) == "0"
    assert quantity(math.nan, digits) == "nan"
    assert quantity(-0.00123, digits) == "-0.00123"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (40.4, "40 s"), (89, "89 s"), (90, "2 min"), (720, "12 min"), (5399, "90 min"), (9000, "2.5 h")],
)
def test_a_time_is_told_in_the_unit_that_fits(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (999, "999 B"), (1500, "1.5 KB"), (195_840_000, "196 MB"), (5.9e9, "5.9 GB"), (1.2e12, "1.2 TB")],
)
def test_sizes_are_byte_size(size: float, text: str) -> None:
    assert byte_size(size) == text
