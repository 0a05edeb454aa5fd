"""Disturbed normal videos: what each disturbance does, and only inside its run."""

import pytest
import torch

from vad_pseudoaug import PseudoVideoSampler
from vad_pseudoaug.bank import Bank
from vad_pseudoaug.export import export_videos
from vad_pseudoaug.one_class import DISTURBANCES, GROUPS, disturb, draw_kind
from vad_pseudoaug.randomness import make_generator
from vad_pseudoaug.recipe import ALTERNATIVES

RUN = torch.tensor([2, 3, 4, 5])
SPREAD = torch.arange(1.0, 13.0)


@pytest.fixture
def bank():
    return Bank(torch.full((1, 2, 4, 12), 7.0), torch.tensor([4]))


@pytest.fixture
def change(vae, bank):
    def make(kind, *, where=RUN, length=10, seed=0):
        video = torch.arange(float(length))[None, :, None].expand(2, length, 12)
        noise = torch.randn(len(where), 4, generator=make_generator(1))
        made = disturb(
            video,
            where,
            kind,
            bank=bank,
            vae=vae,
            spread=SPREAD,
            noise=noise,
            strength=torch.linspace(1, 2, len(where)),
            generator=make_generator(seed),
        )
        assert made.shape == (2, len(where), 12)
        return made

    return make


def times(made):
    assert (made == made[:1, :, :1]).all()
    return made[0, :, 0].tolist()


def test_skip_plays_on_at_twice_the_speed(change):
    assert times(change("skip")) == [2, 4, 6, 8]
    assert times(change("skip", length=7)) == [2, 4, 6, 6]  # stops at the end


def test_repeat_stands_still(change):
    assert times(change("repeat")) == [2, 2, 2, 2]


def test_shuffle_plays_in_another_order(change):
    orders = [times(change("shuffle", seed=seed)) for seed in range(10)]
    assert all(sorted(order) == [2, 3, 4, 5] for order in orders)
    assert len({tuple(order) for order in orders}) > 3


def test_foreign_is_a_run_of_the_bank(change):
    assert times(change("foreign")) == [7, 7, 7, 7]


def test_tail_lies_off_the_course_of_the_video(change, vae):
    made = change("tail")
    source = torch.arange(10.0)[RUN][None, :, None]
    mean, _ = vae.encode(source.expand(1, 4, 12)[0])
    noise = torch.randn(4, 4, generator=make_generator(1))
    moved = mean + 2 * torch.linspace(1, 2, 4)[:, None] * noise
    far = vae.decode(moved, 0) - vae.decode(mean, 0)
    torch.testing.assert_close(made, (source + far).expand(2, 4, 12))


def test_offset_is_one_for_the_run_and_each_feature_on_its_own(change):
    steps = []
    for seed in range(300):
        moved = change("offset", seed=seed) - RUN[None, :, None]
        assert torch.equal(moved[0], moved[1])  # crops alike
        step = moved[0] / torch.linspace(1, 2, 4)[:, None]
        torch.testing.assert_close(step, step[:1].expand(4, 12))
        steps.append(step[0])
    found = torch.stack(steps)
    torch.testing.assert_close(found.std(dim=0), SPREAD, rtol=0.2, atol=0)
    between = torch.corrcoef(found.T) - torch.eye(12)
    assert between.abs().max() < 0.25


def test_the_spread_is_that_of_the_bank_without_its_padding():
    rows = torch.randn(2, 9, 12, generator=make_generator(0)) * SPREAD + 3
    runs = torch.zeros(2, 2, 6, 12)
    runs[0], runs[1, :, :3] = rows[:, :6], rows[:, 6:]
    bank = Bank(runs, torch.tensor([6, 3]))
    expected = rows.flatten(0, 1).std(dim=0, correction=0)
    torch.testing.assert_close(bank.spread(), expected)


def test_a_group_draws_its_kinds_and_a_kind_itself():
    generator = make_generator(0)
    assert set(ALTERNATIVES["disturbance"]) == {*GROUPS, *DISTURBANCES}
    for choice in ALTERNATIVES["disturbance"]:
        drawn = {draw_kind(choice, generator) for _ in range(100)}
        assert drawn == set(GROUPS.get(choice, (choice,)))
    assert set(GROUPS["course"]) | set(GROUPS["far"]) | {"foreign"} == set(DISTURBANCES)


@pytest.mark.parametrize("kind", DISTURBANCES)
def test_a_run_never_stays_as_it_was(change, kind):
    for seed in range(8):
        one = change(kind, where=torch.tensor([9]), seed=seed)
        assert (one != 9).any()
        two = change(kind, where=torch.tensor([8, 9]), seed=seed)
        assert (two != torch.tensor([8.0, 9.0])[:, None]).any()


def test_only_pseudo_abnormal_videos_are_written(many_videos, small, tmp_path):
    choices = {**small, "recipe": None, "steps_per_epoch": 2}
    sampler = PseudoVideoSampler.fit(many_videos[0], **choices)
    made = export_videos(sampler, tmp_path, per_video=1)
    assert (made.num_normal, made.num_abnormal) == (0, len(many_videos[0]))
    assert made.normal_list is None
    assert [path.name for path in tmp_path.glob("*.list")] == ["pseudo_abnormal.list"]


def test_an_unknown_disturbance_is_refused(change):
    with pytest.raises(ValueError, match="there is skip, repeat, shuffle, foreign"):
        change("reverse")


@pytest.mark.parametrize(
    ("disturbance", "least", "most"),
    [("any", 1, 19), ("course", 20, 20), ("foreign", 20, 20), ("far", 0, 0)],
)
def test_only_disturbed_courses_play_real_snippets(
    many_videos, small, disturbance, least, most
):
    normal, _ = many_videos
    choices = {**small, "recipe": None, "share": 0.5}
    sampler = PseudoVideoSampler.fit(normal, **choices, disturbance=disturbance)
    snippets = torch.cat([torch.from_numpy(video[0]) for video in normal])
    real = 0
    for one in sampler.draw(20, label=1, generator=make_generator(0)).unbind():
        made = one.features[0, one.pseudo_mask]
        near = torch.cdist(made, snippets).min(dim=1).values
        real += bool((near < 1e-2).any())  # the bank holds half precision
    assert least <= real <= most


def test_a_sampler_of_normal_videos_alone(many_videos, small, tmp_path):
    normal, abnormal = many_videos
    choices = {**small, "recipe": None, "share": 0.3}
    sampler = PseudoVideoSampler.fit(normal, **choices, folder=tmp_path)
    assert sampler.recipe.name == "one-class"
    pseudo = sampler.draw(label=1, generator=make_generator(0))
    assert pseudo.label == 1
    assert len(pseudo.source) == len(normal)
    for one in pseudo.unbind():
        source = torch.from_numpy(normal[int(one.source)])
        where = one.pseudo_mask.nonzero().squeeze(1)
        assert len(where) == max(1, int(0.3 * source.shape[1]))
        assert where.diff().tolist() == [1] * (len(where) - 1)
        assert torch.equal(
            one.features[:, ~one.pseudo_mask], source[:, ~one.pseudo_mask]
        )
        changed = (one.features != source).any(dim=-1).all(dim=0)
        assert changed[where].all()
    with pytest.raises(ValueError, match="no abnormal videos to make pseudo"):
        sampler.draw(1, label=0)
    # A host that has abnormal videos can still ask for pseudo normal ones.
    swap = PseudoVideoSampler(sampler.vae, profile=sampler.profile)
    made, expected = (
        one.sample(torch.from_numpy(abnormal[0]), label=0, generator=make_generator(0))
        for one in (sampler, swap)
    )
    assert made.pseudo_mask.all()
    torch.testing.assert_close(made.features, expected.features)
    again = PseudoVideoSampler.from_pretrained(tmp_path, normal=normal)
    assert torch.equal(
        again.draw(label=1, generator=make_generator(0)).features, pseudo.features
    )


def test_a_foreign_run_that_is_the_own_one_is_disturbed(vae):
    """As the bank has it: in half precision."""
    video = torch.rand(1, 8, 12, generator=make_generator(0)) + 1
    where = torch.arange(8)
    bank = Bank(video[None].half(), torch.tensor([8]))
    made = disturb(
        video,
        where,
        "foreign",
        bank=bank,
        vae=vae,
        spread=SPREAD,
        noise=torch.randn(8, 4, generator=make_generator(1)),
        strength=torch.ones(8),
        generator=make_generator(2),
    )
    assert not torch.allclose(made, video, rtol=1e-2)
