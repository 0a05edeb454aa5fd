"""Quality gates on made-up videos: each fails where it should, and nowhere else."""

import numpy as np
import pytest
import torch

from vad_pseudoaug import MultiTaskVAE, VAEConfig, gates
from vad_pseudoaug.gate_samples import Clip, Draw, Material, meant_rows
from vad_pseudoaug.gates import judge, judge_model, lag_one
from vad_pseudoaug.one_class_gates import judge_disturbed
from vad_pseudoaug.vae import ABNORMAL, NORMAL

NUM_VIDEOS = 20
FEATURE_DIM = 16
RHO = 0.8  # from snippet to snippet
LEVEL = 5.0  # of a normal feature: the class shift changes the norm by a tenth
SHIFT = np.where(np.arange(FEATURE_DIM) < 6, 1.5, 0)
SPREAD = np.linspace(1.5, 0.5, FEATURE_DIM)
EVERY = {
    "norm ratio",
    "norm gap",
    "variance ratio",
    "Frechet distance",
    "coverage",
    "told from real",
    "classes differ",
    "label validity",
    "lag-1 correlation",
    "novelty",
}


@pytest.fixture(autouse=True)
def _few_draws(monkeypatch):
    """Fewer draws than a user gets: the verdicts must not hang on many."""
    monkeypatch.setattr(gates, "REPEATS", 6)
    monkeypatch.setattr(gates, "CLASSIFIER_REPEATS", 2)
    monkeypatch.setattr(gates, "TREES", 40)


def video(rng, label):
    """A level of the class, what the video adds to it, and AR(1) snippets."""
    noise = rng.standard_normal((int(rng.integers(12, 25)), FEATURE_DIM))
    for now in range(1, len(noise)):
        noise[now] = RHO * noise[now - 1] + (1 - RHO**2) ** 0.5 * noise[now]
    own = 0.3 * rng.standard_normal(FEATURE_DIM)
    return LEVEL + label * SHIFT + SPREAD * (own + 0.8 * noise)


def clips(rng, label, mapping=None):
    found = []
    for _ in range(NUM_VIDEOS):
        features = video(rng, label)
        if mapping is not None:
            features = mapping(features)
        found.append(Clip(features.astype(np.float32), np.ones(len(features), bool)))
    return found


def material(seed, label=ABNORMAL, **parts):
    """Pseudo videos that are as good as real ones, but for what `parts` says.

    Each of `parts` makes clips, given a random generator and the clips so far.
    """
    rng = np.random.default_rng([seed, label])
    found = {
        "pseudo": clips(rng, label),
        "real": clips(rng, label),
        "other": clips(rng, 1 - label),
        "training": clips(rng, label),
        "training_other": clips(rng, 1 - label),
    }
    for name, make in parts.items():
        found[name] = make(rng, found)
    return Material(**found, seed=seed)


def changed(mapping):
    """Make pseudo videos whose features went through `mapping`."""
    return lambda rng, found: clips(rng, ABNORMAL, lambda x: mapping(x, rng))


def failed(found):
    names = {gate.name for gate in found}
    assert names - {"largest norms"} == EVERY  # that one where a part is meant
    assert all(gate.meaning and gate.accept for gate in found)
    return {gate.name for gate in found if not gate.passed}


every_seed = pytest.mark.parametrize("seed", range(3))


@every_seed
@pytest.mark.parametrize("label", [ABNORMAL, NORMAL])
def test_real_videos_pass_all_gates(label, seed):
    assert failed(judge(material(seed, label))) == set()


@every_seed
def test_a_collapsed_decoder_is_found_though_its_label_is_valid(seed):
    pseudo = changed(lambda x, rng: LEVEL + SHIFT + 0.02 * rng.standard_normal(x.shape))
    found = failed(judge(material(seed, pseudo=pseudo)))
    assert found >= {"variance ratio", "coverage", "Frechet distance", "norm gap"}
    # By these alone it would be the best decoder of all.
    assert not found & {"label validity", "norm ratio", "told from real"}


@every_seed
def test_the_mean_of_a_video_varies_too_little(seed):
    pseudo = changed(lambda x, rng: np.broadcast_to(x.mean(axis=0), x.shape))
    found = failed(judge(material(seed, pseudo=pseudo)))
    assert found >= {"variance ratio", "lag-1 correlation"}
    assert not found & {"norm ratio", "label validity", "classes differ", "novelty"}


@every_seed
def test_an_identity_decoder_makes_no_abnormal_videos(seed):
    found = failed(judge(material(seed, pseudo=lambda rng, found: clips(rng, NORMAL))))
    assert found >= {"label validity", "Frechet distance", "told from real"}
    assert not found & {
        "variance ratio", "classes differ", "lag-1 correlation", "novelty"
    }  # fmt: skip


@every_seed
def test_shrunk_norms_are_found(seed):
    found = failed(judge(material(seed, pseudo=changed(lambda x, rng: 0.75 * x))))
    assert found >= {"norm ratio", "norm gap", "variance ratio"}
    assert not found & {"classes differ", "lag-1 correlation", "novelty"}


@every_seed
def test_norms_alone_are_found_by_the_gates_of_norms(seed):
    """Less than the classes differ by: the other gates need not see it."""
    found = failed(judge(material(seed, pseudo=changed(lambda x, rng: 0.93 * x))))
    assert "norm ratio" in found
    assert not found & {
        "variance ratio", "classes differ", "lag-1 correlation", "novelty"
    }  # fmt: skip


@every_seed
def test_shuffled_time_fails_the_gate_of_time_alone(seed):
    pseudo = changed(lambda x, rng: rng.permutation(x))
    assert failed(judge(material(seed, pseudo=pseudo))) == {"lag-1 correlation"}


@every_seed
def test_repeated_training_snippets_fail_the_gate_of_novelty_alone(seed):
    pseudo = {"pseudo": lambda rng, found: found["training"]}
    assert failed(judge(material(seed, **pseudo))) == {"novelty"}


@every_seed
def test_a_selection_of_normal_snippets_is_no_class(seed, monkeypatch):
    monkeypatch.setattr(gates, "CLASSIFIER_REPEATS", 5)

    def normal(rng, found):
        return clips(rng, NORMAL)

    parts = dict.fromkeys(("pseudo", "real", "training"), normal)
    found = {gate.name: gate for gate in judge(material(seed, **parts))}
    assert not found["classes differ"].passed
    # The oracle cannot tell, and must not be asked for what it cannot give.
    assert found["label validity"].passed
    assert abs(found["label validity"].floor - 0.5) < 0.2
    assert found["norm ratio"].passed
    assert found["variance ratio"].passed


def test_only_meant_snippets_are_judged():
    def half(rng, found):
        """Behind the true snippets, and not meant, ones from far away."""
        return [
            Clip(
                np.concatenate((clip.features, clip.features + 50)),
                np.repeat((True, False), len(clip.features)),
            )
            for clip in found["pseudo"]
        ]

    found = failed(judge(material(0, pseudo=half))) - {"largest norms"}
    assert found <= {"lag-1 correlation"}  # time is that of the whole video


def test_the_same_seed_gives_the_same_figures():
    assert judge(material(3)) == judge(material(3))


@pytest.mark.parametrize("name", ["pseudo", "real", "other", "training"])
def test_too_few_videos_are_refused(name):
    def unmeant(rng, found):
        return [clip._replace(mask=clip.mask & False) for clip in found[name]]

    with pytest.raises(
        ValueError, match=f"{name} videos: expected at least .* got 0; hold out more"
    ):
        material(0, **{name: unmeant})


def test_lag_one_of_known_series():
    line = np.arange(100, dtype=np.float32)[:, None]
    assert lag_one(line) == pytest.approx(0.97, abs=0.005)
    assert lag_one(np.array([[1.0], [-1.0]] * 50, dtype=np.float32)) < -0.98
    assert lag_one(np.ones((5, 2), dtype=np.float32)) == 1  # as alike as can be


class LinearVAE(MultiTaskVAE):
    """A linear model that keeps the first features, and knows a level for the others.

    Args:
        num_live: Number of features that it keeps; the other units are dead.
        level: What the decoders give back of the others, `(D,)`.
    """

    def __init__(self, num_live, level=0.0):
        super().__init__(VAEConfig(FEATURE_DIM, hidden_dims=(4,), latent_dim=4))
        self.live = torch.arange(FEATURE_DIM) < num_live
        self.level = torch.as_tensor(level)

    def encode(self, features):
        return features * self.live, torch.zeros_like(features)

    def decode(self, z, label):
        return torch.where(self.live, z, self.level)


def model_figures(vae, seed=0):
    rng = np.random.default_rng(seed)
    found = judge_model(vae, clips(rng, NORMAL), clips(rng, ABNORMAL))
    return {gate.name: gate for gate in found}


@pytest.mark.parametrize(("num_live", "passed"), [(16, True), (5, True), (4, False)])
def test_dead_units_are_counted(num_live, passed):
    found = model_figures(LinearVAE(num_live))
    for name in ("active units, normal", "active units, abnormal"):
        assert found[name].value == num_live / FEATURE_DIM
        assert found[name].passed == passed


def test_a_perfect_linear_model_explains_everything():
    found = model_figures(LinearVAE(FEATURE_DIM))
    for name in ("explained variance, normal", "explained variance, abnormal"):
        assert found[name].value == pytest.approx(1)
        assert found[name].passed


def test_a_model_that_forgets_features_explains_less_than_nothing():
    """It gives 0 back where a feature is far from 0: worse than the mean."""
    found = model_figures(LinearVAE(8))
    assert found["explained variance, normal"].value < 0
    assert not found["explained variance, normal"].passed


def test_a_model_that_returns_the_mean_explains_nothing():
    normal = clips(np.random.default_rng(1), NORMAL)
    vae = LinearVAE(0, meant_rows(normal).mean(axis=0))
    found = {g.name: g for g in judge_model(vae, normal, normal)}
    assert found["explained variance, normal"].value == pytest.approx(0, abs=1e-5)
    assert found["active units, normal"].value == 0


def in_part(clip, rng):
    """Mean half of a clip, in one run."""
    mask = np.zeros(len(clip.mask), dtype=bool)
    start = int(rng.integers(len(mask) // 2))
    mask[start : start + len(mask) // 2] = True
    return Clip(clip.features, mask)


def test_whether_generated_snippets_have_the_largest_norms_is_counted():
    rng = np.random.default_rng(0)

    def pseudo(scale):
        made = []
        for clip in clips(rng, NORMAL):
            half = in_part(clip, rng)
            features = half.features.copy()
            features[half.mask] *= scale
            made.append(Clip(features, half.mask))
        return lambda rng, found: made

    found = {}
    for scale in (1.0, 3.0, 0.3):
        gates = judge(material(0, pseudo=pseudo(scale)))
        found[scale] = next(g for g in gates if g.name == "largest norms")
    assert found[3.0].value == 1
    assert found[3.0].passed
    assert found[0.3].value == 0
    assert not found[0.3].passed
    assert found[1.0].value == pytest.approx(found[1.0].contrast, abs=0.15)
    assert not any(g.name == "largest norms" for g in judge(material(0)))


DISTURBED = {
    "odd": lambda x, rng: x + SPREAD * np.resize((1, -1), FEATURE_DIM),
    "far": lambda x, rng: x + 2 * SPREAD * rng.choice((-1, 1), x.shape),
    "shuffle": lambda x, rng: rng.permutation(x),
    "repeat": lambda x, rng: np.repeat(x[:1], len(x), axis=0),
    "normal": lambda x, rng: x,
    "huge": lambda x, rng: 3 * x,
}


def disturbed(kind, seed):
    """Gates of normal videos, of which a run is disturbed in a way."""
    rng = np.random.default_rng([seed, 5])
    made = []
    for clip in clips(rng, NORMAL):
        half = in_part(clip, rng)
        features = half.features.copy()
        features[half.mask] = DISTURBED[kind](features[half.mask], rng)
        made.append(Clip(features, half.mask))
    found = judge_disturbed(made, clips(rng, NORMAL), clips(rng, NORMAL), seed=seed)
    return {gate.name: gate.passed for gate in found}


@every_seed
@pytest.mark.parametrize("kind", ["odd", "far", "shuffle", "repeat", "huge"])
def test_disturbed_normal_videos_differ_from_normal_ones(kind, seed):
    assert disturbed(kind, seed)["differs from normal"]


@every_seed
def test_normal_videos_are_no_disturbed_ones(seed):
    found = disturbed("normal", seed)
    assert not found["differs from normal"]
    assert found["norm ratio"]
    assert found["norm gap"]
    assert found["variance ratio"]


@every_seed
def test_a_disturbance_that_any_norm_gives_away_is_found(seed):
    assert not disturbed("huge", seed)["norm ratio"]


def test_pseudo_videos_are_not_compared_with_their_sources():
    """Undisturbed they are as far from other videos as these from each other."""
    rng = np.random.default_rng(0)
    normal, training = clips(rng, NORMAL), clips(rng, NORMAL)
    [gate] = (
        gate
        for gate in judge_disturbed(normal, normal, training)
        if gate.name == "differs from normal"
    )
    assert gate.value == pytest.approx(gate.floor, abs=0.05)
    assert not gate.passed
    numbered = [
        Clip(np.full((3, 2), i, np.float32), np.ones(3, bool)) for i in range(9)
    ]
    masks = [Clip(clip.features, np.eye(3, dtype=bool)[0]) for clip in numbered]
    material = Material(masks, numbered, numbered, numbered, numbered, paired=True)
    for repeat in range(5):
        draw = Draw(material, repeat)
        pseudo, real, again = (
            set(own.rows[:, 0].tolist()) for own in (draw.pseudo, draw.real, draw.again)
        )
        assert len(pseudo) == 4
        assert not again & (pseudo | real)


def test_one_feature_is_judged_too():
    rng = np.random.default_rng(0)
    parts = ["pseudo", "real", "other", "training", "training_other"]
    made = {
        name: [Clip(clip.features[:, :1], clip.mask) for clip in clips(rng, i % 2)]
        for i, name in enumerate(parts)
    }
    assert all(np.isfinite(gate.value) for gate in judge(Material(**made)))
