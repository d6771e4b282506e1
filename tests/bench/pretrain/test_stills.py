"""Stills show what their labels say, and captions say it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bench.data.motion.render import COLOURS, Sprite, coverage
from bench.pretrain import stills as module
from bench.pretrain.stills import (
    ATTRIBUTES,
    CONTEXT,
    END,
    SIZE,
    START,
    VOCABULARY,
    Shape,
    Still,
    StillBatches,
    attributes_of,
    caption,
    draw_still,
    tokenise,
)

DRAWN = [draw_still(np.random.default_rng((7, index))) for index in range(400)]


def _alone(shape_words: dict[str, str]) -> list[Still]:
    wanted = {name: ATTRIBUTES[name].index(word) for name, word in shape_words.items()}
    return [s for s in DRAWN if len(s.shapes) == 1 and wanted.items() <= s.shapes[0].values.items()]


def _saturation(still: Still) -> np.ndarray:
    picture = still.picture.astype(float)
    return picture.max(-1) - picture.min(-1)


def test_pictures_have_the_size_that_videos_have_and_differ() -> None:
    assert all(still.picture.shape == (SIZE, SIZE, 3) and still.picture.dtype == np.uint8 for still in DRAWN)
    assert len({still.picture.tobytes() for still in DRAWN}) == len(DRAWN)


def test_every_value_of_every_attribute_occurs() -> None:
    shown = attributes_of(DRAWN)
    assert shown.keys() == ATTRIBUTES.keys()
    for name, values in shown.items():
        assert values.shape == (len(DRAWN), len(ATTRIBUTES[name]))
        assert (values.sum(0) > 0).all(), name


@pytest.mark.parametrize(("attribute", "axis"), [("column", 0), ("row", 1)])
def test_places_are_where_the_colour_is(attribute: str, axis: int) -> None:
    """The middle of the most colourful pixels moves on with the label, measured from the picture alone."""
    words = ATTRIBUTES[attribute]
    middles = []
    for word in words:
        found = []
        for still in _alone({attribute: word, "opacity": "solid"}):
            mass = np.clip(_saturation(still) - 90, 0, None)
            if mass.sum():
                found.append((mass.sum(axis=axis) * np.arange(SIZE)).sum() / mass.sum())
        middles.append(np.median(found))
    assert middles == sorted(middles)
    # seven parts of the width between the margins
    part = (1 - 2 * 0.12) / len(words)
    expected = [(0.12 + (index + 0.5) * part) * SIZE - 0.5 for index in range(len(words))]
    assert middles == pytest.approx(expected, abs=2.5)


@pytest.mark.parametrize("colour", COLOURS)
def test_the_most_colourful_pixel_has_the_named_colour(colour: str) -> None:
    chosen = _alone({"colour": colour, "opacity": "solid"})
    assert len(chosen) >= 5
    right = 0
    for still in chosen:
        at = np.unravel_index(_saturation(still).argmax(), (SIZE, SIZE))
        pixel = still.picture[at] / 255
        right += min(COLOURS, key=lambda name: float(np.abs(pixel - COLOURS[name]).sum())) == colour
    assert right / len(chosen) > 0.8


def test_sizes_rise_with_the_label_and_cover_what_they_say(monkeypatch) -> None:
    areas = []
    for index in range(len(ATTRIBUTES["size"])):
        low, high = np.log(module._RADIUS)
        radius = float(np.exp(low + (index + 0.5) / len(ATTRIBUTES["size"]) * (high - low)))
        one = np.ones(1, np.float32)
        sprite = Sprite("circle", np.ones(3), 0.0, 0.5 * one, 0.5 * one, radius * one, one)
        assert module._values(sprite)["size"] == index
        areas.append(float(coverage(sprite, SIZE).mean()))
    assert areas == sorted(areas)


def test_two_shapes_share_no_colour_and_leave_each_other_visible() -> None:
    pairs = [still.shapes for still in DRAWN if len(still.shapes) == 2]
    assert len(pairs) > 50
    assert all(first.values["colour"] != second.values["colour"] for first, second in pairs)


def test_round_shapes_have_no_angle() -> None:
    for still in DRAWN:
        for shape in still.shapes:
            assert ("angle" in shape.values) == (ATTRIBUTES["shape"][shape.values["shape"]] not in ("circle", "ring"))


def test_captions_name_everything_that_is_shown_and_nothing_else() -> None:
    rng = np.random.default_rng(0)
    for still in DRAWN:
        text = caption(still, rng)
        for name in ("colour", "shape"):
            words = {ATTRIBUTES[name][shape.values[name]] for shape in still.shapes}
            assert {word for word in ATTRIBUTES[name] if word in text.split()} == words
        for shape in still.shapes:
            for name, value in shape.values.items():
                assert ATTRIBUTES[name][value] in text
        assert ("nothing" in text) == (not still.shapes)


def test_tokens_are_a_number_a_word_between_start_and_end() -> None:
    row, other = tokenise(["there is nothing", "a red star and a red star"]).tolist()
    assert len(row) == CONTEXT and row[0] == other[0] == START
    assert row[4] == END == max(row) == VOCABULARY - 1 and not any(row[5:])
    assert other[1:4] == other[5:8]
    with pytest.raises(KeyError):
        tokenise(["a purple star"])


def test_no_caption_is_too_long() -> None:
    rng = np.random.default_rng(3)
    crowded = Still(DRAWN[0].picture, tuple(Shape({**s.values, "angle": 1}) for s in DRAWN[0].shapes[:1] * 2))
    assert max(len(caption(crowded, rng).split()) for _ in range(200)) + 2 <= CONTEXT


def test_batches_depend_on_seed_stream_and_index_alone() -> None:
    def first(**changes: int) -> torch.Tensor:
        return StillBatches(**{"count": 2, "size": 4, "side": 32, "seed": 0, "stream": 1, **changes})[1].pictures

    assert first().shape == (4, 3, 32, 32)
    assert torch.equal(first(), first(count=9))
    assert not torch.equal(first(), first(seed=1))
    assert not torch.equal(first(), first(stream=2))
    batches = StillBatches(3, 4, 32, 0, 1)
    for here, there in zip(batches.drawn(0), batches.drawn(2), strict=True):
        assert torch.equal(here.pictures, there.pictures) and torch.equal(here.captions, there.captions)
