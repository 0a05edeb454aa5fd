"""Arms: one contract for every kind, and what each simple kind is made of."""

import itertools
import sys

import numpy as np
import pytest

from vad_pseudoaug import PseudoVideoSampler, Recipe, VideoSet
from vad_pseudoaug.arms import KINDS, Arm, Training, make_extra
from vad_pseudoaug.features import to_segments
from vad_pseudoaug.recipe import RECIPES
from vad_pseudoaug.selection import Selection

# "auto" may add nothing; it has tests of its own.
every_kind = pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "auto"])
ABNORMAL_ONLY = ("robust", "one-class")  # pseudo normal videos unasked for are none


@pytest.fixture
def choices(small):
    small.pop("recipe")  # each arm has its own
    return {
        **small,
        "baseline_lr": 0.01,
        "folds": 2,
        "steps_per_epoch": 3,
        "batch_size": 16,
    }


@pytest.fixture
def train(videos, choices):
    """Prepare arms on videos of which every third abnormal snippet is normal."""
    normal, abnormal = videos
    for video in abnormal:
        video[:, ::3] -= 0.5

    def prepare(*, seed=0, shift=0.0, hosts=None, **changes):
        return Training(
            VideoSet([video + np.float32(shift) for video in normal]),
            VideoSet([video + np.float32(shift) for video in abnormal]),
            recipe=Recipe.named(**{**choices, **changes}),
            seed=seed,
            progress=False,
            hosts=hosts,
        )

    return prepare


@pytest.fixture
def extra(choices):
    def make(kind, training, per_video=1.0):
        return make_extra(Arm(kind, kind, per_video).beside(choices), training)

    return make


def sources(training):
    return [list(training.sets[label]) for label in (0, 1)]


def snippets(videos, masks=None):
    """All or the chosen snippets of videos, flat: `(M, N * D)`."""
    masks = masks or [slice(None)] * len(videos)
    chosen = [v[:, mask].swapaxes(0, 1) for v, mask in zip(videos, masks, strict=True)]
    return np.concatenate(chosen).reshape(sum(map(len, chosen)), -1)


def is_one_of(row, rows):
    return (rows == row.ravel()).all(axis=1).any()


def is_between(row, rows):
    """Whether a row is on the line between two others."""
    for start, end in itertools.permutations(rows, 2):
        step = end - start
        share = (row.ravel() - start) @ step / (step @ step)
        on_line = np.allclose(start + share * step, row.ravel(), atol=1e-4)
        if on_line and -1e-4 <= share <= 1 + 1e-4:
            return True
    return False


def changed(video, source):
    return (video != source).any(axis=(0, 2))


@every_kind
@pytest.mark.parametrize(
    ("per_video", "expected"), [(2.0, (12, 16)), (0.4, (2, 3)), (0.0, (0, 0))]
)
def test_a_class_gets_a_number_per_video_of_the_other_one(
    train, extra, kind, per_video, expected
):
    num_normal, num_abnormal = expected
    if kind == "none" or kind in ABNORMAL_ONLY:
        num_normal = 0
    if kind == "none":
        num_abnormal = 0
    made = extra(kind, train(), per_video)
    assert (len(made.normal), len(made.abnormal)) == (num_normal, num_abnormal)


@every_kind
def test_videos_are_finite_float32_crops_of_their_sources_lengths(train, extra, kind):
    training = train()
    before = [[video.copy() for video in videos] for videos in sources(training)]
    made = extra(kind, training, 2.0)
    for label, videos in enumerate(made):
        for video in videos:
            assert video.dtype == np.float32
            assert (video.shape[0], video.shape[2]) == (2, 12)
            assert np.isfinite(video).all()
            assert video.min() >= 0
        same = kind in ("duplicate", "jitter", "mixup", "psemix")
        lengths = [v.shape[1] for v in before[label if same else 1 - label]]
        found = [v.shape[1] for v in videos]
        assert found[: len(lengths)] == (lengths if found else [])
        assert set(found) <= set(lengths)
    for now, then in zip(sources(training), before, strict=True):
        for one, other in zip(now, then, strict=True):
            np.testing.assert_array_equal(one, other)


@every_kind
def test_the_same_seed_gives_the_same_videos_in_any_order(train, extra, kind):
    first, second = extra(kind, train(), 2.0), extra(kind, train(), 2.0)
    for ours, theirs in zip(first, second, strict=True):
        backwards = [theirs[i] for i in reversed(range(len(theirs)))]
        for one, two in zip(ours, reversed(backwards), strict=True):
            np.testing.assert_array_equal(one, two, strict=True)
        for one, two in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(one, two, strict=True)


@pytest.mark.parametrize(
    "kind", [k for k in KINDS if k not in ("none", "duplicate", "auto")]
)
def test_another_seed_gives_other_videos(train, extra, kind):
    first, other = (extra(kind, train(seed=seed)).abnormal for seed in (0, 1))
    assert any(
        one.shape != two.shape or (one != two).any()
        for one, two in zip(first, other, strict=True)
    )


def test_duplicates_are_real_videos_of_their_class_in_turn(train, extra):
    training = train()
    for real, made in zip(
        sources(training), extra("duplicate", training, 2.0), strict=True
    ):
        uses = [sum(np.array_equal(one, other) for other in made) for one in real]
        assert sum(uses) == len(made)
        assert max(uses) - min(uses) == 1


def test_jitter_has_a_tenth_of_the_spread_of_each_feature(train, extra):
    training = train(shift=-3.0)
    for videos in sources(training):
        for video in videos:
            video *= np.arange(1, 13, dtype=np.float32)
    real = sources(training)
    rows = np.concatenate([v.reshape(-1, 12) for videos in real for v in videos])
    made = extra("jitter", training, 20.0)
    noise = np.concatenate(
        [
            (video - videos[number % len(videos)]).reshape(-1, 12)
            for videos, more in zip(real, made, strict=True)
            for number, video in enumerate(list(more)[: 10 * len(videos)])
        ]
    ) / (0.1 * rows.std(axis=0))
    assert len(noise) > 1000
    np.testing.assert_allclose(noise.mean(axis=0), 0, atol=0.12)
    np.testing.assert_allclose(noise.std(axis=0), 1, atol=0.08)


def at_length(videos, length):
    return [to_segments(video, length, method="linear").ravel() for video in videos]


def test_mixup_is_a_mean_of_two_videos_of_the_class(train, extra):
    training = train()
    shares = []
    for videos, made in zip(
        sources(training), extra("mixup", training, 2.0), strict=True
    ):
        for number, video in enumerate(itertools.islice(made, len(videos))):
            source = videos[number].ravel()
            others = at_length(videos[:number] + videos[number + 1 :], video.shape[1])
            assert any(is_between(video, [source, other]) for other in others)
            shares.append(np.abs(video.ravel() - source).max() > 1e-3)
    assert np.mean(shares) > 0.8


def test_psemix_takes_each_snippet_of_one_of_two_videos(train, extra):
    training = train()
    swapped = []
    for videos, made in zip(
        sources(training), extra("psemix", training, 2.0), strict=True
    ):
        for number, video in enumerate(itertools.islice(made, len(videos))):
            source = videos[number]
            others = [v for i, v in enumerate(videos) if i != number]
            resized = [
                at.reshape(source.shape) for at in at_length(others, source.shape[1])
            ]
            where = changed(video, source)
            assert any((video[:, where] == o[:, where]).all() for o in resized)
            swapped += where.tolist()
    assert 0.3 < np.mean(swapped) < 0.7


@pytest.mark.parametrize("shift", [0.0, -1.0])
def test_mean_shift_adds_the_difference_of_the_means(train, extra, shift):
    training = train(shift=shift)
    normal, abnormal = sources(training)
    selected = snippets(abnormal, training.selection.masks)
    difference = selected.reshape(-1, 12).mean(axis=0) - snippets(normal).reshape(
        -1, 12
    ).mean(axis=0)
    made = extra("mean-shift", training)
    lowest = 0 if shift == 0 else -np.inf
    for video, source in zip(made.normal, abnormal, strict=True):
        expected = np.maximum(source - difference, lowest)
        np.testing.assert_allclose(video, expected, atol=1e-5)
    for video, source in zip(made.abnormal, normal, strict=True):
        mask = changed(video, source)
        assert mask.sum() == max(1, source.shape[1] // 2)
        expected = source + mask[:, None] * difference
        np.testing.assert_allclose(video, np.maximum(expected, lowest), atol=1e-5)


@pytest.mark.parametrize(
    ("arm", "is_made_of"), [("cutmix", is_one_of), ("smote", is_between)]
)
def test_snippets_of_the_class_are_put_in(train, extra, arm, is_made_of):
    training = train()
    normal, abnormal = sources(training)
    masks = training.selection.masks
    assert 0 < training.selection.num_selected < training.selection.num_snippets
    selected, others = snippets(abnormal, masks), snippets(normal)
    made = extra(arm, training)
    for video, source in zip(made.abnormal, normal, strict=True):
        mask = changed(video, source)
        assert mask.sum() == max(1, source.shape[1] // 2)
        for t in np.flatnonzero(mask):
            assert is_made_of(video[:, t], selected)
    for video, source, mask in zip(made.normal, abnormal, masks, strict=True):
        np.testing.assert_array_equal(changed(video, source), mask)
        for t in np.flatnonzero(mask):
            assert is_made_of(video[:, t], others)


def test_smote_needs_its_extra(train, extra, monkeypatch):
    monkeypatch.setitem(sys.modules, "imblearn.over_sampling", None)
    with pytest.raises(ImportError, match=r"imblearn .*vad-pseudoaug\[eval\]"):
        extra("smote", train())


def test_smote_says_that_it_needs_neighbours(train, extra):
    training = train()
    masks = [np.zeros_like(mask) for mask in training.selection.masks]
    masks[0][1] = True
    training.selection = Selection(tuple(masks), (1, 2, 3, 4, 5))
    with pytest.raises(ValueError, match="snippet"):
        extra("smote", training)


@pytest.mark.parametrize("kind", [k for k in RECIPES if k != "mean-shift"])
def test_a_recipe_generates_all_of_an_abnormal_and_half_of_a_normal_video(
    train, choices, kind
):
    training = train()
    normal, abnormal = sources(training)
    arm = Arm(kind, kind, 1.0, {**choices, "normal_rate": 1.0})
    made = make_extra(arm, training)
    assert len(made.normal) == len(abnormal)
    for video, source in zip(made.normal, abnormal, strict=True):
        assert changed(video, source).all()
    for video, source in zip(made.abnormal, normal, strict=True):
        where = np.flatnonzero(changed(video, source))
        half = max(1, source.shape[1] // 2)
        if kind == "paper":
            assert len(where) == half
        elif kind == "one-class":  # the first snippet of a run may stay in its place
            assert 1 <= len(where) <= half
            assert np.ptp(where) < half
        else:
            assert np.ptp(where) == len(where) - 1 == half - 1


class Poisoned:
    """A host that any more videos than the real ones harm, or help."""

    def __init__(self, *, helps):
        self.helps = helps
        self.seen = []

    def __call__(self, normal, abnormal, seed):
        self.seen.append((len(normal), len(abnormal)))
        more = len(abnormal) > 4  # of six, four are left in a part
        sign = 1 if more is self.helps else -1
        return lambda video: sign * video.mean(axis=(0, 2))


@pytest.mark.parametrize("helps", [False, True])
def test_auto_adds_what_training_videos_speak_for(train, choices, helps):
    host = Poisoned(helps=helps)
    arm = Arm("auto", "auto", None, choices)
    made = make_extra(arm, train(hosts={"mine": host}))
    assert len(made.normal) == 0
    # A share of 1/4 of all abnormal videos; 1/2 gains no more.
    assert len(made.abnormal) == (2 if helps else 0)
    assert all(np.isfinite(video).all() for video in made.abnormal)
    assert len(host.seen) == 9  # three parts: none, 1/4 and 1/2


def test_auto_chooses_for_each_host_by_the_same_fits(train, choices, monkeypatch):
    fits = []

    def fit(*arguments, **options):
        fits.append(len(arguments[0]))
        return real(*arguments, **options)

    real = PseudoVideoSampler.fit
    monkeypatch.setattr(PseudoVideoSampler, "fit", fit)
    hosts = {"harmed": Poisoned(helps=False), "helped": Poisoned(helps=True)}
    training = train(hosts=hosts)
    arm = Arm("auto", "auto", None, choices)
    assert len(make_extra(arm, training).abnormal) == 0
    assert len(fits) == 3  # without each part
    training.host = "helped"
    together = make_extra(arm, training).abnormal
    assert len(fits) == 4  # on all videos, of which pseudo videos are made
    assert training.choice(arm).p == 0.25
    alone = make_extra(arm, train(hosts={"helped": Poisoned(helps=True)})).abnormal
    for one, other in zip(together, alone, strict=True):
        np.testing.assert_array_equal(one, other)


def test_choices_of_an_arm_are_those_of_its_recipe(train, choices):
    training = train()
    arm = Arm("few", "paper", 1.0, {**choices, "share": 0.25})
    for video, source in zip(
        make_extra(arm, training).abnormal, training.sets[0], strict=True
    ):
        assert changed(video, source).sum() == max(1, source.shape[1] // 4)


@pytest.mark.parametrize("kind", ["mean-shift", "cutmix", "smote", "paper"])
def test_an_arm_without_a_selected_snippet_is_refused(train, choices, kind):
    arm = Arm(kind, kind).beside({**choices, "threshold": 1.0})
    with pytest.raises(ValueError, match="no snippet of the 6 abnormal videos"):
        make_extra(arm, train(threshold=1.0))


def test_an_unknown_kind_is_refused():
    with pytest.raises(
        ValueError, match="unknown arm 'paste'; there is none, duplicate, "
    ):
        Arm("mine", "paste")


@pytest.mark.parametrize(
    ("kind", "choices"),
    [
        ("none", {"share": 0.3}),
        ("jitter", {"epochs": 7}),
        ("mean-shift", {"min_strength": 0.2}),
        ("cutmix", {"normal_rate": 0.0}),
        ("smote", {"top_share": 0.3}),
    ],
)
def test_a_choice_that_changes_nothing_is_refused(kind, choices):
    with pytest.raises(ValueError, match=f"{next(iter(choices))} would change nothing"):
        Arm("x", kind, choices=choices)
    # One for all arms is of those that take it.
    assert Arm("x", kind).beside(choices) == Arm("x", kind)


def test_a_choice_of_all_arms_is_of_those_that_take_it():
    common = {"share": 0.3, "epochs": 2, "baseline_epochs": 9}
    assert Arm("x", "cutmix").beside(common).choices == {
        "share": 0.3, "baseline_epochs": 9
    }  # fmt: skip
    own = Arm("x", "robust", choices={"share": 0.4}).beside(common)
    assert own.recipe == Recipe.named("robust", **{**common, "share": 0.4})
    assert Arm("x", "auto").beside(common).recipe == Recipe.named("robust", **common)
