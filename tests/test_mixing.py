"""The maker of pseudo videos of a host's items, by itself."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from vad_pseudoaug.generation import PseudoVideo
from vad_pseudoaug.items import ItemFormat
from vad_pseudoaug.mixing import PseudoVideoMaker, translate_video


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


def test_a_segment_that_comes_out_all_zero_keeps_its_source():
    source, made = torch.rand(2, 4, 3), torch.rand(2, 4, 3)
    made[:, 0], made[:, 1] = source[:, 0], 0
    mask, number = torch.tensor([False, True, True, True]), torch.tensor(0)
    sampler = SimpleNamespace(
        sample=lambda *_, **__: PseudoVideo(made, 1, mask, number, number)
    )
    found = translate_video(sampler, source, ItemFormat(), 1, torch.Generator())
    assert torch.equal(found[0][:, :2], source[:, :2])
    assert torch.equal(found[0][:, 2:], made[:, 2:])
    assert found[1].tolist() == [False, False, True, True]
