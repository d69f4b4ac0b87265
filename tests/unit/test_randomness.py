"""Random streams: keyed by the sample, independent of batches, and apart from the global generator."""

from __future__ import annotations

import pytest
import torch

from xrobust.randomness import SampleStreams, mix, normal_like, uniform_like


@pytest.mark.parametrize("draw", [uniform_like, normal_like])
def test_a_sample_draws_the_same_numbers_in_any_batch(draw) -> None:
    x = torch.empty(6, 1, 4, 4)
    whole = draw(x, SampleStreams(3, range(6)))
    parts = torch.cat([draw(x[:2], SampleStreams(3, range(2))), draw(x[2:], SampleStreams(3, range(2, 6)))])
    backwards = draw(x, SampleStreams(3, reversed(range(6)))).flip(0)
    assert torch.equal(whole, parts) and torch.equal(whole, backwards)
    assert not torch.equal(whole[0], whole[1])


def test_a_subset_goes_on_with_its_own_streams() -> None:
    x = torch.empty(4, 8)
    mask = torch.tensor([True, False, True, False])
    streams, twin = SampleStreams(0, range(4)), SampleStreams(0, range(4))
    uniform_like(x, streams), uniform_like(x, twin)
    assert torch.equal(uniform_like(x[mask], streams[mask]), uniform_like(x, twin)[mask])


def test_draws_do_not_touch_the_global_generator() -> None:
    before = torch.get_rng_state()
    uniform_like(torch.empty(3, 3), torch.Generator().manual_seed(0))
    normal_like(torch.empty(3, 3), SampleStreams(0, range(3)))
    assert torch.equal(before, torch.get_rng_state())


def test_a_wrong_number_of_streams_is_refused() -> None:
    with pytest.raises(ValueError, match="2 random streams for a batch of 3"):
        uniform_like(torch.empty(3, 1), SampleStreams(0, range(2)))


def test_mixed_seeds_differ_and_fit_a_generator() -> None:
    seeds = {mix(a, b) for a in range(100) for b in range(100)}
    assert len(seeds) == 10_000
    assert all(0 <= seed < 2**63 for seed in seeds)
