"""The maker of pseudo videos of a host's items, by itself."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from vad_pseudoaug.items import ItemFormat
from vad_pseudoaug.mixing import PseudoVideoMaker


def test_a_made_video_is_a_function_of_the_generator_and_of_the_length(sampler):
    video = torch.rand(2, 5, 12)
    sources = SimpleNamespace(read=lambda number: (video, ItemFormat()))
    maker = PseudoVideoMaker(sampler, {1: sources})

    def make(seed, length=None):
        generator = torch.Generator().manual_seed(seed)
        return maker.make(1, 0, generator, length=length)[0]

    first, again, other = make(0), make(0), make(1)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert make(0, 9).shape == (2, 9, 12)


@pytest.mark.parametrize("length", [1, 3, 5, 9])
def test_a_source_is_interpolated_to_the_length_of_an_item(sampler, length):
    video = torch.rand(2, 5, 12)
    sources = SimpleNamespace(read=lambda number: (video[number:], ItemFormat()))
    found, item_format = PseudoVideoMaker(sampler, {1: sources}).read(
        1, 1, length=length
    )
    assert item_format == ItemFormat()
    assert found.shape == (1, length, 12)
    places = np.linspace(0, 4, length)  # the first snippet stays first, the last last
    for feature in range(12):
        expected = np.interp(places, np.arange(5), video[1, :, feature])
        np.testing.assert_allclose(found[0, :, feature], expected, atol=1e-6)
