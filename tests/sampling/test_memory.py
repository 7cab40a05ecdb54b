"""The ladder, with the full-size model's sizes and made-up free memory."""

import dataclasses

import pytest

from fluxkit.sampling.memory import GIB, Weights, for_size, lower, place, predicted_bytes

# FLUX.1-dev with 8-bit blocks, counted: 8.12 GiB (8.14 measured at rest).
DOUBLE, SINGLE = 227_000_000, 113_500_000
FLUX = Weights(92_000_000, (DOUBLE,) * 19 + (SINGLE,) * 38)


@pytest.mark.parametrize(
    ("free", "streamed", "batch"),
    [
        (79.0, 0, 4),
        (23.5, 0, 4),
        (22.5, 0, 4),
        (11.0, 0, 4),
        (10.6, 0, 3),  # one needs as much: what decoding takes
        (8.0, range(20, 40), 3),
        (5.0, range(40, 58), 1),
    ],
)
def test_what_is_chosen_from_free_memory(free: float, streamed: int | range, batch: int) -> None:
    placed = place(FLUX, int(free * GIB), 1024, 1024)
    assert placed is not None
    assert placed.streamed in (streamed if isinstance(streamed, range) else (streamed,))
    assert placed.batch >= batch
    assert placed.predicted_bytes <= free * GIB


def test_batches_shrink_before_blocks_are_streamed() -> None:
    one = predicted_bytes(FLUX, 0, 1, 2048, 2048)
    placed = place(FLUX, one, 2048, 2048)
    assert placed is not None
    assert (placed.streamed, placed.batch) == (0, 4) or placed.predicted_bytes <= one
    assert place(FLUX, predicted_bytes(FLUX, 0, 4, 2048, 2048), 2048, 2048, batch=4).streamed == 0  # type: ignore[union-attr]


def test_the_end_of_the_ladder() -> None:
    assert place(FLUX, 1 * GIB, 1024, 1024) is None
    rungs, streamed = [], 0
    while (further := lower(FLUX, streamed)) is not None:
        rungs.append(further)
        streamed = further
    assert rungs == [14, 28, 42, 56, 57]
    peaks = [predicted_bytes(FLUX, rung, 1, 1024, 1024) for rung in (0, *rungs)]
    assert peaks[1:] == sorted(peaks[1:], reverse=True)


def test_another_size_gets_the_largest_batch_with_the_blocks_where_they_are() -> None:
    placed = place(FLUX, int(11 * GIB), 1024, 1024)
    assert placed is not None
    larger = for_size(placed, FLUX, int(11.5 * GIB), 1152, 1152)
    assert (larger.streamed, larger.batch) == (0, 4)
    fits = predicted_bytes(FLUX, 0, 4, 2048, 2048)
    assert for_size(placed, FLUX, fits, 2048, 2048).batch == 4
    assert for_size(placed, FLUX, fits, 2560, 2560).batch == 1, "tried, and halved or streamed where it runs out"
    with_cache = dataclasses.replace(FLUX, kept_gib_per_image=1.0)
    assert for_size(placed, with_cache, fits, 2048, 2048).batch < 4
