"""A check judges a run on videos that it never saw, and refuses those that it saw."""

import numpy as np
import pytest

from vad_pseudoaug import PseudoVideoSampler, VideoSet, check
from vad_pseudoaug.check import check_sampler, refit_on_part
from vad_pseudoaug.report import write_report
from vad_pseudoaug.vae import ABNORMAL, NORMAL


@pytest.fixture
def write(many_videos, tmp_path):
    """Write the videos as files; return the two lists of their paths."""

    def write(name="features", videos=many_videos):
        (tmp_path / name).mkdir()
        found = []
        for label, group in zip(("normal", "abnormal"), videos, strict=True):
            paths = [tmp_path / name / f"{label}{i}.npy" for i in range(len(group))]
            for path, video in zip(paths, group, strict=True):
                np.save(path, video.transpose(1, 0, 2))
            found.append(paths)
        return found

    return write


@pytest.fixture
def fit(small):
    def fit(normal, abnormal, **changes):
        choices = {**small, "baseline_lr": 0.01, **changes}
        return PseudoVideoSampler.fit(normal, abnormal, **choices)

    return fit


def names(videos):
    return {path.name for path in videos.paths}


def test_a_check_has_gates_of_the_model_and_of_both_classes(checked):
    assert list(checked.gates) == [
        "the model",
        "pseudo abnormal videos",
        "pseudo normal videos",
    ]
    assert [len(part) for part in checked.gates.values()] == [4, 11, 10]
    every = [gate for part in checked.gates.values() for gate in part]
    assert checked.passed == all(gate.passed for gate in every)
    saved = checked.to_dict()
    assert saved["passed"] == checked.passed
    assert saved["gates"]["the model"][0]["value"] == every[0].value


def test_what_is_judged_was_made_of_videos_that_the_sampler_never_saw(
    checked, many_videos
):
    known = {v.tobytes() for kind in (NORMAL, ABNORMAL) for v in fitted(checked, kind)}
    assert len(known) == 10
    for label in (NORMAL, ABNORMAL):
        material, sources = checked.materials[label], checked.sources[label]
        assert len(material.pseudo) == len(sources) == 5
        held_out = {v[0].tobytes() for v in many_videos[1 - label]} - known
        for pseudo, source in zip(material.pseudo, sources, strict=True):
            assert source.features.tobytes() in held_out
            kept = ~pseudo.mask
            assert (pseudo.features[kept] == source.features[kept]).all()
            assert (pseudo.features[pseudo.mask] != source.features[pseudo.mask]).any()
        assert {clip.features.tobytes() for clip in material.training} <= known
        for clip in (*material.real, *material.other):
            assert clip.features.tobytes() not in known


def fitted(checked, label):
    """The first crops of the videos of a class that the sampler was fitted on."""
    return [video[0] for video in checked.sampler.sources(1 - label)]


def test_of_abnormal_videos_the_selected_snippets_count(checked):
    clips = [*checked.materials[ABNORMAL].real, *checked.materials[NORMAL].other]
    assert 0 < np.mean(np.concatenate([clip.mask for clip in clips])) < 1
    # The second half of the snippets is abnormal: they are selected more often.
    halves = [np.array_split(clip.mask, [len(clip.mask) // 2]) for clip in clips]
    first, second = (
        np.mean(np.concatenate(half)) for half in zip(*halves, strict=True)
    )
    assert second > first
    assert all(clip.mask.all() for clip in checked.materials[NORMAL].real)


def test_videos_that_the_sampler_was_fitted_on_are_refused(write, fit, many_videos):
    files = write()
    sampler = fit(*files)
    message = "normal: the sampler was fitted on {} of these 10 videos, such as .*{}"
    every, one = message.format(10, "normal0"), message.format(1, "normal{}")
    with pytest.raises(ValueError, match=f"^{every}"):
        check_sampler(sampler, *files)
    # One of them is one too many.
    other = write("other", [[v + 1 for v in group] for group in many_videos])
    with pytest.raises(ValueError, match=f"^{one.format(4)}"):
        check_sampler(sampler, [*other[0][1:], files[0][4]], other[1])
    with pytest.raises(ValueError, match=f"^ab{one.format(3)}"):
        check_sampler(sampler, other[0], [*other[1][1:], files[1][3]])
    # Nor do they pass by another name.
    copies = write("copies")
    with pytest.raises(ValueError, match=f"^{every}"):
        check_sampler(sampler, *copies)
    with pytest.raises(ValueError, match=f"^ab{one.format(5)}"):
        check_sampler(sampler, other[0], [*other[1][1:], copies[1][5]])


def test_videos_in_memory_are_known_again(fit, many_videos):
    sampler = fit(*many_videos)
    message = "normal: the sampler was fitted on {} of these {} videos, such as normal"
    with pytest.raises(ValueError, match=message.format(10, 10)):
        check_sampler(sampler, *many_videos)
    # Some of them, too, and be it as float64 or as what claims to be abnormal.
    new = [[v + 1 for v in group] for group in many_videos]
    mixed = [new[0][0], *[v.astype(np.float64) for v in many_videos[0][:3]]]
    with pytest.raises(ValueError, match=message.format(3, 4)):
        check_sampler(sampler, mixed, new[1])
    with pytest.raises(ValueError, match=f"ab{message[:-6].format(1, 11)}"):
        check_sampler(sampler, new[0], [*new[1], many_videos[0][9]])


def test_videos_past_the_first_are_known_again(monkeypatch):
    monkeypatch.setattr(check, "MAX_VIDEOS", 2)
    videos = [np.full((1, 3, 2), i, np.float32) + np.eye(3, 2) for i in range(6)]
    known, new = (VideoSet(own, name="normal") for own in (videos, videos[5:]))
    with pytest.raises(ValueError, match="fitted on 1 of these 1 videos"):
        check._refuse_known([known], [new])


def test_videos_that_are_alike_in_part_are_not_the_same():
    video = np.random.default_rng(0).random((2, 100, 3), dtype=np.float32)
    other = video.copy()
    other[1, 50:60] += 1
    nothing = np.zeros((2, 100, 3), np.float32)  # a lost one, as another may be
    known = VideoSet([video, nothing], name="normal")
    new = VideoSet([other, video[:, :-1], video[:, :1], nothing], name="normal")
    check._refuse_known([known], [new])


def test_copies_in_the_list_of_a_run_are_not_held_out(fit, many_videos):
    """None is judged by a sampler that was fitted on the other."""
    normal, abnormal = many_videos
    sampler = fit([*normal, *normal[:3]], abnormal)
    refitted, held_out, others = refit_on_part(sampler)
    trained = {video.tobytes() for video in refitted.normal}
    assert not trained & {video.tobytes() for video in held_out}
    assert 4 <= len(held_out) < 6
    assert len(others) == 5
    check._refuse_known([refitted.normal, refitted.abnormal], [held_out, others])


def test_too_few_videos_are_refused(few_draws, fit, many_videos):
    normal, abnormal = many_videos
    sampler = fit(normal[3:], abnormal[3:])
    with pytest.raises(ValueError, match=r"at least 4 .* hold out more videos"):
        check_sampler(sampler, normal[:3], abnormal[:3])


def test_a_refit_leaves_out_a_share_of_each_class(write, fit):
    files = write()
    sampler = fit(*files)
    refitted, *held_out = refit_on_part(sampler, share=0.4)
    assert refitted.recipe == sampler.recipe
    assert refitted.seed == sampler.seed
    kept = refitted.sources(ABNORMAL), refitted.sources(NORMAL)
    for own, left_out, all_files in zip(kept, held_out, files, strict=True):
        assert (len(own), len(left_out)) == (6, 4)
        assert not names(own) & names(left_out)
        assert names(own) | names(left_out) == {file.name for file in all_files}


def test_a_refit_that_is_kept_is_not_repeated(write, fit, tmp_path, monkeypatch):
    sampler = fit(*write())
    first, *held_out = refit_on_part(sampler, tmp_path / "held-out")

    def refuse(*arguments, **options):
        raise AssertionError("fitted again")

    monkeypatch.setattr(PseudoVideoSampler, "fit", refuse)
    again, *left_out = refit_on_part(sampler, tmp_path / "held-out")
    for name, weight in first.vae.state_dict().items():
        assert (again.vae.state_dict()[name] == weight).all()
    for one, other in zip(held_out, left_out, strict=True):
        assert one.paths == other.paths
    with pytest.raises(AssertionError, match="fitted again"):
        refit_on_part(sampler)


@pytest.mark.parametrize("changes", [{"seed": 1}, {"epochs": 2}, "videos", "share"])
def test_a_kept_refit_of_another_run_is_refused(
    changes, write, fit, tmp_path, many_videos
):
    files = write()
    refit_on_part(fit(*files), tmp_path / "held-out")
    share = 0.5
    if changes == "videos":
        files, changes = write("other"), {}
    elif changes == "share":
        share, changes = 0.4, {}
    with pytest.raises(ValueError, match="held-out: holds the fit of another run"):
        refit_on_part(fit(*files, **changes), tmp_path / "held-out", share=share)


def test_a_kept_refit_of_other_videos_in_memory_or_scores_is_refused(
    fit, many_videos, tmp_path
):
    normal, abnormal = many_videos

    def ascending(video):
        return np.linspace(0, 1, video.shape[1])

    def descending(video):
        return ascending(video)[::-1]

    def refit(name, own=normal, scores=None):
        sampler = fit(own, abnormal, scores=scores)
        return refit_on_part(sampler, tmp_path / name, scores=scores)[0]

    for name, scores in (("baseline", None), ("scores", ascending)):
        first, again = (refit(name, scores=scores) for _ in range(2))
        assert again.fingerprint() == first.fingerprint()
    for name, changes in (
        ("baseline", {"own": [normal[0], *(video + 1 for video in normal[1:])]}),
        ("baseline", {"scores": ascending}),
        ("scores", {"scores": descending}),
        ("scores", {}),
    ):
        with pytest.raises(ValueError, match="holds the fit of another run"):
            refit(name, **changes)
    (tmp_path / "scores" / check.REFIT).unlink()  # as of an earlier version
    with pytest.raises(ValueError, match="holds the fit of another run"):
        refit("scores", scores=ascending)


@pytest.fixture(scope="module")
def one_class(few_draws, many_videos):
    """The check of a sampler of normal videos alone."""
    sampler = PseudoVideoSampler.fit(many_videos[0], epochs=2, hidden_dims=(16,))
    refitted, *held_out = refit_on_part(sampler)
    assert held_out[1] is None
    assert (len(refitted.normal), len(held_out[0])) == (5, 5)
    return check_sampler(refitted, *held_out)


def test_a_sampler_of_normal_videos_alone_is_judged_by_normal_ones(one_class):
    assert one_class.one_class
    assert list(one_class.gates) == ["the model", "pseudo abnormal videos"]
    names = [gate.name for gate in one_class.gates["pseudo abnormal videos"]]
    assert "differs from normal" in names
    assert [gate.name for gate in one_class.gates["the model"]] == [
        "active units, normal",
        "explained variance, normal",
    ]
    material = one_class.materials[ABNORMAL]
    for clip in material.pseudo:
        assert 0 < clip.mask.mean() < 1


def test_a_report_of_normal_videos_alone_names_no_abnormal_ones(one_class, tmp_path):
    page = write_report(one_class, tmp_path).read_text()
    assert "No abnormal video was given" in page
    assert "real abnormal" not in page
    assert len(list(tmp_path.glob("*.png"))) == 7


def test_the_classes_held_out_are_those_that_were_fitted(one_class, many_videos):
    with pytest.raises(ValueError, match="of the classes that the sampler was fitted"):
        check_sampler(one_class.sampler, *many_videos)


def test_given_scores_select_in_a_check_too(few_draws, many_videos, small):
    """The halves of an abnormal video, of which the second is selected."""

    def score(video):
        return np.repeat((0.1, 0.9), [video.shape[1] // 2, -(-video.shape[1] // 2)])

    sampler = PseudoVideoSampler.fit(*many_videos, scores=score, **small)
    refitted, *held_out = refit_on_part(sampler, scores=score)
    found = check_sampler(refitted, *held_out, scores=score)
    for clip in found.materials[ABNORMAL].real:
        assert clip.mask.tolist() == (score(clip.features[None]) > 0.5).tolist()
