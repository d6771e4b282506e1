from __future__ import annotations

import pytest

from bench.data.dataset import DATASETS
from bench.data.decode_pool import Reading, reading


@pytest.mark.parametrize(("cores", "workers"), [(0, 1), (1, 1), (8, 8), (64, 16)])
def test_auto_takes_the_cores_within_reason_and_none_for_small_videos(cores: int, workers: int) -> None:
    assert reading("auto", cores, 9.0, True) == Reading(workers, 0, 9.0, True)


def test_a_number_holds_for_all_data_sets() -> None:
    assert reading(3, 64, 60, False) == Reading(3, 3, 60.0, False)


def test_the_embedded_videos_are_the_small_ones() -> None:
    assert [name for name in DATASETS.names() if DATASETS.get(name).small] == ["motion"]
