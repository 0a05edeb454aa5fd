"""How many pseudo videos to mix in: none where they harm; no look at test videos."""

import numpy as np
import pytest

from vad_pseudoaug import PseudoVideoSampler, Recipe, auto
from vad_pseudoaug.auto import (
    Choice,
    choose_p,
    count_mixed,
    fit_batch,
    mix_in,
    separation,
)
from vad_pseudoaug.randomness import make_generator
from vad_pseudoaug.videos import VideoSet

QUICK = {
    "hidden_dims": (16,),
    "latent_dim": 4,
    "epochs": 1,
    "steps_per_epoch": 2,
    "batch_size": 16,
    "baseline_epochs": 20,
    "baseline_lr": 0.01,
    "baseline_hidden_dims": (8,),
    "normal_quantile": 0.8,
    "folds": 2,
}


class Host:
    """Its scores are right by a share that depends on how much is pseudo.

    It knows real videos by their content.
    """

    def __init__(self, videos, right):
        self.known = {v.tobytes() for own in videos for v in own}
        self.right = right
        self.trained = []

    def __call__(self, normal, abnormal, seed):
        normal, abnormal = ([np.array(v) for v in own] for own in (normal, abnormal))
        real = sum(v.tobytes() in self.known for v in abnormal)
        assert all(v.tobytes() in self.known for v in normal)
        share = round(4 * (1 - real / len(abnormal))) / 4
        self.trained.append((share, {v.tobytes() for v in (*normal, *abnormal)}))
        right = self.right(share)

        def score(video):
            assert video.tobytes() not in self.trained[-1][1]  # it was left out
            draws = np.random.default_rng(len(self.trained)).random(video.shape[1])
            return np.where(draws < right, video.mean(axis=(0, 2)), 1.4)

        return score


def choose(videos, right, **options):
    host = Host(videos, right)
    return choose_p(*videos, train=host, progress=False, **QUICK, **options), host


def test_none_are_mixed_in_where_they_are_poison(many_videos):
    choice, host = choose(many_videos, lambda share: 0.9 if share == 0 else 0.1)
    assert choice.p == 0
    assert set(choice.gains) == {0.25, 0.5}
    assert all((own < 0).all() for own in choice.gains.values())
    assert "p=0 chosen on held-out training videos" in choice.reason
    assert len(host.trained) == 9


def test_so_many_are_mixed_in_as_help_most(many_videos, caplog):
    with caplog.at_level("INFO", "vad_pseudoaug"):
        choice, host = choose(many_videos, lambda share: 0.1 + share)
    assert choice.p == 0.5
    assert choice.reason in caplog.text
    assert "p=0.25: +" in choice.reason
    assert sorted({share for share, _ in host.trained}) == [0, 0.25, 0.5]
    best_early, _ = choose(many_videos, lambda share: 0.9 if share == 0.25 else 0.1)
    assert best_early.p == 0.25


def test_no_difference_is_no_reason(many_videos):
    class Same(Host):
        def __call__(self, normal, abnormal, seed):
            return lambda video: video.mean(axis=(0, 2))

    host = Same(many_videos, None)
    choice = choose_p(*many_videos, train=host, progress=False, **QUICK)
    assert choice.p == 0
    assert choice.summary() == {0.25: (0, 0), 0.5: (0, 0)}


@pytest.mark.parametrize(
    ("choices", "why"),
    [
        ({"recipe": "paper", "threshold": 1.0}, "no snippet of the 6 abnormal videos"),
        ({"validation_share": 0.9}, "validation_share=0.9: expected some videos"),
        ({"lr": 1e30}, "training diverged"),
    ],
)
def test_what_cannot_be_fitted_on_a_part_is_a_trial_that_failed(
    many_videos, choices, why
):
    choice, host = choose(many_videos, lambda share: 0.5, **choices)
    assert (choice.p, choice.gains, host.trained) == (0, {}, [])
    assert choice.failed.startswith("without part 1 of 3, ")
    assert why in choice.failed
    assert choice.failed in choice.reason


def test_bad_videos_and_the_hosts_own_errors_are_raised(many_videos):
    def train(normal, abnormal, seed):
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        choose_p(*many_videos, train=train, progress=False, **QUICK)
    bad = [video.copy() for video in many_videos[1]]
    bad[4][0, 0, 0] = np.nan
    with pytest.raises(ValueError, match="finite"):
        choose((many_videos[0], bad), lambda share: 0.5)


def test_a_gain_within_its_error_is_no_reason():
    gains = {0.5: np.array([0.1, -0.05, 0.01])}
    [(mean, error)] = Choice(0.0, gains).summary().values()
    assert mean == pytest.approx(0.02)
    assert error == pytest.approx(np.std(gains[0.5], ddof=1) / np.sqrt(3))
    assert mean < error
    assert auto._choose(gains, "").p == 0


def test_a_gain_in_one_part_alone_is_no_reason():
    # By rounding, one in twelve of these would exceed their error.
    for gain in np.random.default_rng(0).random(100).tolist():
        for place in range(3):
            own = np.roll([gain, 0.0, 0.0], place).tolist()
            assert auto._choose({0.25: own, 0.5: own}, "").p == 0
    assert auto._choose({0.25: [0.1, 0.1, 0.0], 0.5: [0.2, 0.0, 0.0]}, "").p == 0.25


def test_only_the_videos_given_are_read(many_videos):
    # Whatever is fitted is fitted on what the part keeps: the sampler's sources too.
    choice, host = choose(many_videos, lambda share: 0.5, parts=2)
    real = {v.tobytes() for own in many_videos for v in own}
    for share, seen in host.trained:
        assert len(seen & real) == 10  # half of ten and ten
        assert (len(seen - real) == 0) == (share == 0)
    assert [len(own) for own in choice.gains.values()] == [2, 2]


def test_of_many_videos_some_are_tried(many_videos):
    seen = []

    def train(normal, abnormal, seed):
        seen.append((len(normal), len(abnormal)))
        return lambda video: video.mean(axis=(0, 2))

    choose_p(
        *many_videos, train=train, max_videos=6, tried=(0.5,), progress=False, **QUICK
    )
    # Four of the six are kept for each of three parts: alone, and with as many more.
    assert seen == [(4, 4), (4, 8)] * 3


def test_the_same_seed_gives_the_same_choice(many_videos):
    first, second = (
        choose(many_videos, lambda share: 0.5 + share)[0] for _ in range(2)
    )
    assert first.p == second.p
    for p, gains in first.gains.items():
        np.testing.assert_array_equal(gains, second.gains[p])


def test_the_built_in_host_is_tried_where_none_is_given(many_videos):
    trained = []

    def train(*arguments, device):
        trained.append(arguments)
        return lambda video: video.mean(axis=(0, 2))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(auto, "train_baseline", train)
        choose_p(*many_videos, progress=False, parts=2, tried=(0.5,), **QUICK)
    assert len(trained) == 4
    few = [VideoSet(own[:4]) for own in many_videos]
    assert separation(auto.train_baseline(*few, 0), *few) > 0.9


def test_a_recipe_of_normal_videos_alone_can_be_tried(many_videos):
    choice, host = choose(many_videos, lambda share: 0.1 + share, recipe="one-class")
    assert choice.p == 0.5
    assert len(host.trained) == 9


def test_videos_mixed_in_are_those_of_draw_each_as_long_as_its_source(
    vae, many_videos, monkeypatch
):
    normal, abnormal = (VideoSet(own) for own in many_videos)
    recipe = Recipe.named("paper", normal_rate=0.5)
    sampler = PseudoVideoSampler(vae, recipe=recipe, normal=normal, abnormal=abnormal)
    drawn = {
        label: sampler.draw(count, label=label, generator=make_generator(3, 8, label))
        for label, count in ((0, 3), (1, 10))
    }
    monkeypatch.delattr(PseudoVideoSampler, "draw")  # pads all to the longest
    for label, mixed in enumerate(mix_in(normal, abnormal, sampler, 0.5, seed=3)):
        made = list(mixed)[10:]
        expected = drawn[label].unbind()
        assert len(made) == len(expected)
        for features, one in zip(made, expected, strict=True):
            np.testing.assert_array_equal(features, one.features.numpy())
    assert len({features.shape for features in made}) > 1


def test_the_figure_sets_normal_snippets_against_the_highest_fifth():
    normal = VideoSet([np.zeros((1, 4, 1), np.float32)])
    abnormal = VideoSet([np.arange(10, dtype=np.float32).reshape(1, 10, 1) - 8])

    def score(video):
        return video[0, :, 0]

    # The highest two are 0 and 1: one tie with all of the four zeros.
    assert separation(score, normal, abnormal) == pytest.approx(0.75)


def test_counts_make_the_share():
    for p in (0.1, 0.25, 0.5, 0.9):
        for count in (10, 63):
            made = count_mixed(count, p)
            assert made / (made + count) == pytest.approx(p, abs=0.05)
    assert count_mixed(10, 0.0) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"parts": 1}, "parts: expected 2 or more"),
        ({"parts": 11}, "no more than 10 normal"),
        ({"tried": ()}, "tried: expected values"),
        ({"tried": (1.0,)}, "tried: expected values"),
        ({"recipe": "magic"}, "unknown recipe"),
    ],
)
def test_what_cannot_be_tried_is_refused(many_videos, options, message):
    with pytest.raises(ValueError, match=message):
        choose_p(*many_videos, **options)


def test_more_videos_do_not_change_the_batches_that_a_host_is_tried_with(many_videos):
    normal, abnormal = many_videos
    seen = []

    def train(own, other, seed, *, batch_size):
        seen.append((len(other), batch_size))
        return lambda video: video.mean(axis=(0, 2))

    choose_p(normal, abnormal[:6], train=train, progress=False, **QUICK)
    assert sorted(set(seen)) == [(4, 4), (5, 4), (8, 4)]
    assert fit_batch(range(40), range(50)) == 32


@pytest.mark.parametrize("wrong", [lambda s: s[:3], lambda s: s[None], np.mean])
def test_a_host_that_does_not_score_each_snippet_is_refused(many_videos, wrong):
    def train(normal, abnormal, seed):
        return lambda video: wrong(video.mean(axis=(0, 2)))

    with pytest.raises(ValueError, match=r"scores: expected \d+ finite values for"):
        choose_p(*many_videos, train=train, progress=False, **QUICK)
