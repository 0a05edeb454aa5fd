"""Posterior codes: encoded once, and then only decoded."""

import copy
import os
import pickle
from pathlib import Path

import pytest
import torch

from vad_pseudoaug import PseudoVideoSampler, Recipe
from vad_pseudoaug.codes import Codes
from vad_pseudoaug.generation import CHUNK_ROWS
from vad_pseudoaug.randomness import make_generator


@pytest.fixture
def no_encoder(vae, monkeypatch):
    """Forbid the encoder from here on."""

    def forbid():
        monkeypatch.setattr(vae, "encode", lambda _: pytest.fail("encoded again"))

    return forbid


def drawn(sampler, *, label=1, num_segments=None):
    return sampler.draw(
        20, label=label, num_segments=num_segments, generator=make_generator(3)
    )


@pytest.mark.parametrize("label", [0, 1])
@pytest.mark.parametrize(
    "choices",
    [{}, {"taper": 1}, {"translation": "residual", "max_strength": 1.5, "taper": 1}],
    ids=["swap", "swap-tapered", "residual"],
)
def test_codes_give_the_same_pseudo_videos(vae, no_encoder, label, choices):
    sampler = PseudoVideoSampler(vae, recipe=Recipe.named("paper", **choices))
    batch, lengths = torch.rand(3, 2, 8, 12), torch.tensor([8, 2, 5])
    options = {"label": label, "lengths": lengths}
    expected = sampler.sample(batch, generator=make_generator(1), **options)
    codes = sampler.encode(batch)
    assert [own.shape for own in codes] == [(3, 2, 8, 4)] * 2
    no_encoder()
    found = sampler.sample(batch, generator=make_generator(1), codes=codes, **options)
    assert torch.equal(found.pseudo_mask, expected.pseudo_mask)
    torch.testing.assert_close(found.features, expected.features)


def test_single_videos_and_many_rows_are_encoded(sampler, vae):
    for shape in ((12,), (5, 12), (2, 5, 12), (CHUNK_ROWS + 3, 12)):
        features = torch.rand(shape, dtype=torch.float64)
        mean, log_var = sampler.encode(features)
        rows = features.view(-1, 12).float()
        for found, expected in zip((mean, log_var), vae.encode(rows), strict=True):
            torch.testing.assert_close(found.view(-1, 4), expected)
    video = torch.rand(5, 12)
    codes = sampler.encode(torch.stack((video, video)).transpose(0, 1))
    of_one = Codes(*(own[:, 0] for own in codes))  # not contiguous
    made = sampler.sample(video, label=1, codes=of_one)
    assert made.features.shape == (5, 12)


@pytest.mark.parametrize("label", [0, 1])
@pytest.mark.parametrize("num_segments", [None, 4])
def test_kept_codes_serve_what_is_drawn(vae, videos, no_encoder, label, num_segments):
    normal, abnormal = videos  # of different lengths
    sampler = PseudoVideoSampler(vae, normal=normal, abnormal=abnormal)
    expected = drawn(sampler, label=label, num_segments=num_segments)
    size = sampler.keep_codes(label=label, num_segments=num_segments)
    rows = sum(
        video.shape[0] * (num_segments or video.shape[1])
        for video in (abnormal, normal)[label]
    )
    assert size == rows * 2 * 4 * 2  # mean and variance, 4 units, 2 bytes
    no_encoder()
    found = drawn(sampler, label=label, num_segments=num_segments)
    assert torch.equal(found.pseudo_mask, expected.pseudo_mask)
    assert torch.equal(found.lengths, expected.lengths)
    kept = ~found.pseudo_mask
    for video in range(20):
        own = kept[video]
        assert torch.equal(
            found.features[video][:, own], expected.features[video][:, own]
        )
    assert not torch.equal(found.features, expected.features)  # half precision
    torch.testing.assert_close(found.features, expected.features, rtol=0, atol=2e-3)


def test_codes_of_others_are_not_used(vae, videos):
    normal, abnormal = videos
    sampler = PseudoVideoSampler(vae, normal=normal, abnormal=abnormal)
    expected = [drawn(sampler), drawn(sampler, label=0), drawn(sampler, num_segments=3)]
    sampler.keep_codes(label=1, num_segments=4)
    found = [drawn(sampler), drawn(sampler, label=0), drawn(sampler, num_segments=3)]
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one.features, other.features)


def test_long_videos_are_encoded_in_parts(vae, videos, monkeypatch):
    normal, _ = videos
    sampler = PseudoVideoSampler(vae, normal=normal)
    whole = drawn(sampler)
    monkeypatch.setattr("vad_pseudoaug.pooling.BLOCK_BYTES", 2 * 12 * 4)
    assert len(list(sampler.sources(1).blocks(0))) == normal[0].shape[1]
    sampler.keep_codes(label=1)
    torch.testing.assert_close(
        drawn(sampler).features, whole.features, rtol=0, atol=2e-3
    )


def test_copies_have_none_and_nothing_is_left(vae, videos):
    def open_files():
        return len(list(Path("/proc/self/fd").iterdir()))

    sampler = PseudoVideoSampler(vae, normal=videos[0])
    expected, before = drawn(sampler), open_files()
    sampler.keep_codes(label=1)
    assert open_files() == before + 1
    for same in (copy.deepcopy(sampler), pickle.loads(pickle.dumps(sampler))):
        assert torch.equal(drawn(same).features, expected.features)
    sampler.keep_codes(label=1)  # takes the place of the first
    assert open_files() == before + 1
    del sampler
    assert open_files() == before


def test_a_process_that_was_forked_reads_its_own(vae, videos):
    sampler = PseudoVideoSampler(vae, normal=videos[0])
    sampler.keep_codes(label=1)
    [kept] = sampler._kept.values()
    expected = kept.read(3)
    child = os.fork()
    if not child:  # it must not move the place where its parent reads
        os._exit(0 if torch.equal(kept.read(0).mean, kept.read(0).mean) else 1)
    found = kept.read(3)
    assert os.waitpid(child, 0)[1] == 0
    assert torch.equal(found.mean, expected.mean)


@pytest.mark.parametrize(
    ("choices", "label"),
    [
        ({"recipe": "mean-shift"}, 1),
        ({"recipe": "mean-shift"}, 0),
        ({"translation": "graft"}, 1),
    ],
)
def test_recipes_without_a_use_for_codes_say_so(videos, small, choices, label):
    sampler = PseudoVideoSampler.fit(*videos, **{**small, **choices})
    with pytest.raises(ValueError, match="decodes none of the source's codes"):
        sampler.keep_codes(label=label)
    video = torch.rand(2, 6, 12)
    with pytest.raises(ValueError, match="decodes none of the source's codes"):
        sampler.sample(video, label=label, codes=sampler.encode(video))


def test_one_class_uses_them_for_normal_videos_alone(videos, small):
    sampler = PseudoVideoSampler.fit(videos[0], **{**small, "recipe": "one-class"})
    video = torch.rand(2, 6, 12)
    codes = sampler.encode(video)
    expected = sampler.sample(video, label=0, generator=make_generator(0))
    found = sampler.sample(video, label=0, generator=make_generator(0), codes=codes)
    torch.testing.assert_close(found.features, expected.features)
    with pytest.raises(ValueError, match="for pseudo abnormal videos"):
        sampler.sample(video, label=1, codes=codes)


def test_codes_of_other_features_are_refused(sampler):
    video = torch.rand(2, 6, 12)
    codes = sampler.encode(video)
    for wrong in (
        sampler.encode(video[:, :5]),
        sampler.encode(video[0]),
        Codes(codes.mean, codes.log_var[..., :2]),
    ):
        with pytest.raises(ValueError, match="codes: expected a"):
            sampler.sample(video, label=1, codes=wrong)
    with pytest.raises(ValueError, match="feature size 12"):
        sampler.encode(torch.rand(2, 6, 11))


def test_codes_too_large_to_keep_are_refused(vae, videos):
    sampler = PseudoVideoSampler(vae, normal=[video * 1e7 for video in videos[0]])
    with pytest.raises(ValueError, match="beyond half precision"):
        sampler.keep_codes(label=1)
