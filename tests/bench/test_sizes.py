from __future__ import annotations

import pytest
from pydantic import ValidationError

from bench.sizes import shown
from bench.spec import Request, problems_of


@pytest.mark.parametrize(
    ("text", "size"),
    [("20GB", 20 * 10**9), ("500 mb", 5 * 10**8), ("1.5GiB", 3 * 2**29), ("7", 7), ("2tib", 2**41), ("3KB", 3000)],
)
def test_sizes_are_read(text: str, size: int) -> None:
    assert Request(cache_limit=text).cache_limit == size


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("much", "such as 500MB"),
        ("20GB-30GB", "such as 500MB"),
        (True, "such as 500MB"),
        ("-1GB", "such as 500MB"),
        ("20GBB", "did you mean 'GB'"),
        ("20Gigs", "one of the units B, KB"),
        ("0GB", "more than 0"),
        ("", "such as"),
    ],
)
def test_what_is_not_a_size_is_told(text: str, told: str) -> None:
    with pytest.raises(ValidationError) as error:
        Request(cache_limit=text)
    (problem,) = problems_of(error.value)
    assert problem.startswith(f"cache_limit is {text!r}: expected ") and told in problem


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (999, "999 B"), (1500, "1.5 KB"), (195_840_000, "196 MB"), (5.9e9, "5.9 GB"), (1.2e12, "1.2 TB")],
)
def test_sizes_are_shown(size: float, text: str) -> None:
    assert shown(size) == text
