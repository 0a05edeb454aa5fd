"""Pictures: what is drawn is what was given; a missing extra is named."""

import builtins

import numpy as np
import pytest

from vad_pseudoaug import plots
from vad_pseudoaug.extras import progress_bar
from vad_pseudoaug.intervals import Interval

LABELS = np.array([0, 1, 1, 0, 0, 1])
SCORES = {"one": np.linspace(0, 1, 6), "two": np.linspace(1, 0, 6)}


def test_roc_curves_run_from_corner_to_corner():
    axes = plots.plot_roc(LABELS, SCORES)
    lines = axes.get_lines()[:2]
    assert len({(line.get_color(), str(line.get_linestyle())) for line in lines}) == 2
    for line in lines:
        assert line.get_xydata()[0].tolist() == [0, 0]
        assert line.get_xydata()[-1].tolist() == [1, 1]
    assert [t.get_text() for t in axes.get_legend().get_texts()] == [
        "one (0.556)",
        "two (0.444)",
    ]


def test_scores_are_drawn_over_the_true_intervals():
    axes = plots.plot_scores(LABELS, SCORES, title="video")
    shaded = [(p.get_x(), p.get_x() + p.get_width()) for p in axes.patches]
    assert shaded == [(1, 3), (5, 6)]
    assert axes.get_lines()[0].get_ydata().tolist() == SCORES["one"].tolist()
    assert legend_of(axes) == ["anomalous (truth)", *SCORES]
    with pytest.raises(ValueError, match="to_frames"):
        plots.plot_scores(LABELS, {"of snippets": SCORES["one"][:2]})
    # Pictures of several have one legend, by who makes them.
    _, given = plots.new_figure()
    plots.plot_scores(LABELS, SCORES, axes=given[0, 0])
    assert not given[0, 0].figure.legends


def legend_of(axes):
    (legend,) = axes.figure.legends
    return [text.get_text() for text in legend.get_texts()]


def test_twelve_curves_differ_without_colour():
    axes = plots.plot_roc(LABELS, {str(i): SCORES["one"] for i in range(12)})
    looks = {str(line._unscaled_dash_pattern) for line in axes.get_lines()[:12]}
    assert len(looks) == 12


def test_pseudo_snippets_are_hollow_and_look_like_their_class():
    rng = np.random.default_rng(0)
    names = ("normal", "abnormal", "pseudo normal", "pseudo abnormal")
    axes = plots.plot_projection({name: rng.random((7, 5)) for name in names})
    normal, abnormal, *pseudo = axes.collections
    for real, made in zip((normal, abnormal), pseudo, strict=True):
        assert (real.get_edgecolor() == made.get_edgecolor()).all()
        one, other = (c.get_paths()[0].vertices for c in (real, made))
        assert np.array_equal(one, other)
        assert len(real.get_facecolor()) == 1
        assert len(made.get_facecolor()) == 0
    assert (normal.get_edgecolor() != abnormal.get_edgecolor()).any()


def test_terms_of_a_loss_have_names_for_readers():
    terms = {"kl_normal": 2.0, "reconstruction_abnormal": 1.0, "loss": 3.0, "lr": 1.0}
    legend = plots.plot_history([terms]).get_legend().get_texts()
    assert [text.get_text() for text in legend] == [
        "KL divergence, normal",
        "squared error, abnormal",
        "loss",
    ]


def test_a_forest_has_points_and_fills_what_is_clear():
    found = {"up": Interval(0.02, 0.01, 0.03), "unclear": Interval(0.0, -0.01, 0.02)}
    axes = plots.plot_forest(found, title="host")
    assert [label.get_text() for label in axes.get_yticklabels()] == list(found)
    clear, unclear = (line for line in axes.get_lines() if line.get_marker() == "o")
    assert clear.get_xdata().tolist() == [2]
    assert clear.get_markerfacecolor() != unclear.get_markerfacecolor() == "white"


def test_projection_and_history():
    rng = np.random.default_rng(0)
    groups = {name: rng.random((7, 5)) for name in ("a", "b", "c")}
    axes = plots.plot_projection(groups)
    assert [len(c.get_offsets()) for c in axes.collections] == [7, 7, 7]
    history = [{"lr": 1.0, "kl_normal": 2.0}, {"lr": 0.5, "kl_normal": 1.0}]
    axes = plots.plot_history(history)
    assert axes.get_lines()[0].get_xydata().tolist() == [[1, 2], [2, 1]]


def test_missing_extras_are_named(monkeypatch):
    original = builtins.__import__
    monkeypatch.setattr(
        "importlib.import_module",
        lambda name: (_ for _ in ()).throw(ImportError(name)),
    )
    with pytest.raises(ImportError, match=r"vad-pseudoaug\[plots\]"):
        plots.plot_roc(LABELS, SCORES)
    assert builtins.__import__ is original


def test_progress_is_quiet_unless_asked_for(capsys):
    with progress_bar(2, "quiet", show=None) as step:
        step(loss=1.0)
    assert capsys.readouterr().err == ""
    with progress_bar(2, "loud", show=True) as step:
        step(loss=1.0)
        step()
    assert "loud" in capsys.readouterr().err


def test_a_pseudo_video_is_drawn_over_its_source(sampler):
    video = np.random.default_rng(0).random((2, 9, 12), dtype=np.float32)
    pseudo = sampler.sample(video, label=1)
    axes = plots.plot_pseudo(video, pseudo)
    shaded = sum(patch.get_width() for patch in axes.patches)
    mask = pseudo.pseudo_mask.numpy()
    assert shaded == mask.sum() == 4
    made, source = (line.get_ydata() for line in axes.get_lines())
    assert np.allclose(made[~mask], source[~mask])
    assert (made[mask] - source[mask]).mean() > 0
    assert legend_of(axes) == ["generated", "pseudo abnormal video", "normal video"]
    with pytest.raises(ValueError, match="unbind"):
        plots.plot_pseudo(video, sampler.sample(np.stack([video] * 2), label=1))


def test_every_gate_has_a_row_with_its_verdict(checked):
    axes = plots.plot_gates(checked)
    gates = [gate for part in checked.gates.values() for gate in part]
    assert len(axes.get_yticklabels()) == len(gates)
    drawn = {c.get_label(): len(c.get_offsets()) for c in axes.collections}
    assert drawn["passed"] == sum(gate.passed for gate in gates)
    assert drawn["failed"] == sum(not gate.passed for gate in gates)
    assert all(
        gate.accept in text.get_text()
        for gate, text in zip(gates, axes.texts, strict=True)
    )


def test_a_picture_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "new" / "a.png"
    figure, _ = plots.new_figure()
    plots.save_figure(figure, path)
    whole = path.read_bytes()
    assert whole[-8:-4] == b"IEND"

    def stop(file, **options):
        file.write_bytes(whole[:100])
        raise KeyboardInterrupt

    monkeypatch.setattr(figure, "savefig", stop)
    with pytest.raises(KeyboardInterrupt):
        plots.save_figure(figure, path)
    assert path.read_bytes() == whole
    assert list(path.parent.iterdir()) == [path]
