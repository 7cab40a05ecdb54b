"""The rate that `benchmarks/scale.py` takes from when images came."""

import pytest

from benchmarks.scale import rate


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_batches_that_come_together_count_by_their_pace(workers: int) -> None:
    # Each worker brings 2 images every 3.6 s, all at the same moments; loading took 20 s, the last batch was slow.
    times = [20 + 3.6 * (index // (2 * workers)) for index in range(24 * workers)]
    times[-1] += 10
    assert rate(times) == pytest.approx(workers * 2 / 3.6, rel=0.01)
