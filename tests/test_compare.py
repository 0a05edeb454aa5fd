"""Paired comparisons: what is run, kept, resumed and summarised."""

import csv
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from vad_pseudoaug import Recipe, compare, fitting
from vad_pseudoaug import arms as arms_module
from vad_pseudoaug.arms import Arm
from vad_pseudoaug.checkpoint import CheckpointError
from vad_pseudoaug.compare import Comparison, find_host, load_runs, run_comparison
from vad_pseudoaug.experiments import EXPERIMENTS, find_experiment, parse_arm
from vad_pseudoaug.intervals import hierarchical_bootstrap, resample
from vad_pseudoaug.metrics import Ranking, frame_figures
from vad_pseudoaug.protocol import Data
from vad_pseudoaug.summary import format_tables, summarise, write_summary

ARMS = [Arm("none", "none"), Arm("double", "duplicate", 1.0), Arm("jitter", "jitter")]
MEANS = "hosts.means:train"


def comparison(**changes):
    options = {"arms": ARMS, "hosts": (MEANS,), "num_seeds": 3, **changes}
    return Comparison(Data("ped2", {}), **options)


def files(folder):
    return {
        path.relative_to(folder): path.read_bytes()
        for path in folder.rglob("*.npy")
        if path.is_file()
    }


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("compare")
    return folder, run_comparison(comparison(), folder)


def test_every_seed_arm_and_host_is_run_and_kept(done):
    folder, runs = done
    assert {(run.host, run.arm, run.seed) for run in runs} == {
        (MEANS, arm.name, seed) for arm in ARMS for seed in range(3)
    }
    assert len(list((folder / "runs").rglob("*.json"))) == 9
    extra = {run.arm: run.num_extra for run in runs}
    assert extra == {"none": (0, 0), "double": (6, 4), "jitter": (12, 8)}
    for run in runs:
        split = comparison().data.split(run.seed)
        again = frame_figures(split.labels, split.to_frames(run.scores))
        assert run.figures == pytest.approx(again)
        assert run.best_on_test is None


def test_an_interrupted_comparison_goes_on_where_it_stopped(done, tmp_path):
    folder, _ = done

    def interrupt(line):
        if line.startswith("4 of 9"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_comparison(comparison(), tmp_path, say=interrupt)
    before = files(tmp_path)
    assert len(before) == 4
    said = []
    run_comparison(comparison(), tmp_path, say=said.append)
    assert said[-1].startswith("5 of 5")
    assert files(tmp_path) == files(folder)


@pytest.mark.skipif(
    not Path("/proc/self/task").exists(),
    reason="finds the workers in /proc, which Linux has",
)
def test_workers_end_with_the_process_that_was_killed(tmp_path):
    command = [sys.executable, "-m", "vad_pseudoaug", "compare", "-o", str(tmp_path)]
    options = f"--hosts {MEANS} --arms none long=paper:epochs=100000 --processes 2"
    paths = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    first = tmp_path / "runs" / MEANS.replace(":", "_") / "none" / "000.json"
    with subprocess.Popen(
        [*command, *options.split()], env=paths, start_new_session=True
    ) as run:
        try:
            wait_until(lambda: first.exists() or run.poll() is not None)
            assert run.poll() is None
            children = Path(f"/proc/{run.pid}/task/{run.pid}/children")
            workers = [Path(f"/proc/{own}") for own in children.read_text().split()]
            assert len(workers) >= 2
            run.kill()
            run.wait()
            wait_until(lambda: not any(path.exists() for path in workers))
        finally:  # nothing of it outlives a test that fails
            with suppress(ProcessLookupError):
                os.killpg(run.pid, signal.SIGKILL)


def wait_until(condition, *, seconds=300):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.2)


def test_runs_of_several_processes_are_the_same(done, tmp_path):
    folder, _ = done
    run_comparison(comparison(), tmp_path, processes=2)
    assert files(tmp_path) == files(folder)


def test_arms_and_seeds_may_be_added(done, tmp_path):
    folder, runs = done
    run_comparison(comparison(arms=ARMS[:1], num_seeds=2), tmp_path)
    added = run_comparison(comparison(), tmp_path)
    assert files(tmp_path) == files(folder)
    assert [run.figures for run in added] == [run.figures for run in runs]


def test_arms_that_learn_the_same_learn_it_once(tmp_path, monkeypatch):
    small = {"epochs": 1, "hidden_dims": (4,), "latent_dim": 2, "baseline_epochs": 40}
    small |= {"baseline_hidden_dims": (4,), "threshold": 0.3}
    arms = [
        Arm("none", "none"),
        Arm("paper", "paper"),
        Arm("other threshold", "paper", choices={"threshold": 0.2}),
        Arm("cutmix", "cutmix"),
        Arm("matched", "paper", choices={"norms": "matched", "share": 0.2}),
        Arm("mean-shift", "mean-shift"),
        Arm("less shift", "mean-shift", choices={"share": 0.2}),
    ]
    learned = []

    def counted(name, function):
        def run(*arguments, **options):
            learned.append(name)
            return function(*arguments, **options)

        return run

    for module, name in ((fitting, "train_vae"), (arms_module.Baseline, "fit")):
        counting = counted(name, getattr(module, name))
        monkeypatch.setattr(module, name, counting)
    both, said = comparison(arms=arms, num_seeds=2, choices=small), []
    run_comparison(both, tmp_path / "together", say=said.append)
    # Of each seed: two models, each after a baseline, and two for the controls.
    assert sorted(learned) == ["fit"] * 8 + ["train_vae"] * 4
    assert [line.partition(";")[0] for line in said[1:6]] == [
        "1 of 14: seed 0, none",
        "3 of 14: seed 0, paper, matched",
        "4 of 14: seed 0, other threshold",
        "6 of 14: seed 0, cutmix, mean-shift",
        "7 of 14: seed 0, less shift",
    ]
    for arm in arms:
        run_comparison(replace(both, arms=[arm]), tmp_path / "alone")
    assert files(tmp_path / "alone") == files(tmp_path / "together")


def test_a_host_that_is_tried_beside_another_chooses_as_alone(tmp_path):
    small = {"epochs": 1, "hidden_dims": (4,), "latent_dim": 2, "folds": 2}
    small |= {"baseline_epochs": 2, "normal_quantile": 0.5, "steps_per_epoch": 2}
    hosts = (MEANS, "hosts.means:train_nothing")
    both = comparison(
        arms=[ARMS[0], Arm("auto", "auto")], hosts=hosts, num_seeds=2, choices=small
    )
    run_comparison(both, tmp_path / "together")
    for host in hosts:
        run_comparison(replace(both, hosts=(host,)), tmp_path / "alone")
    assert files(tmp_path / "alone") == files(tmp_path / "together")

    def reasons(folder):
        paths = sorted((tmp_path / folder / "runs").rglob("*.json"))
        return {(p.parts[-3:]): json.loads(p.read_text())["reason"] for p in paths}

    found = reasons("together")
    assert found == reasons("alone")
    for (_, arm, _), reason in found.items():
        if arm == "none":
            assert reason is None
        else:
            assert "chosen on held-out training videos" in reason
    # What this host does is the same with any videos: none are mixed in.
    assert all(
        reason.startswith("p=0 chosen") and "p=0.5: +0.0 +- 0.0" in reason
        for (host, arm, _), reason in found.items()
        if "nothing" in host and arm == "auto"
    )


def test_seeds_may_count_from_another(done, tmp_path):
    _, runs = done
    later = comparison(first_seed=1, num_seeds=2)
    found = run_comparison(later, tmp_path)
    assert [run.seed for run in found] == [1] * 3 + [2] * 3
    expected = [run for run in runs if run.seed > 0]
    assert [run.figures for run in found] == [run.figures for run in expected]
    results = summarise(later, found, against=("none",))
    assert results[0].values["auc"].tolist() == [
        run.figures.auc for run in expected if run.arm == "none"
    ]
    # Without a warning that there is no curve: the pictures are of its first seed.
    write_summary(tmp_path, later, found, results)


def test_results_of_another_comparison_are_refused(done):
    folder, _ = done
    with pytest.raises(ValueError, match="another"):
        run_comparison(comparison(choices={"epochs": 2}), folder)
    other = [Arm("none", "none"), Arm("double", "duplicate", 2.0)]
    with pytest.raises(ValueError, match="'double' was another one"):
        run_comparison(comparison(arms=other), folder)


def test_a_host_that_shows_checkpoints_has_a_best_one(tmp_path, monkeypatch):
    monkeypatch.setattr(compare, "RTFM_STEPS", 60)
    arms = [Arm("none", "none"), Arm("double", "duplicate")]
    runs = run_comparison(
        comparison(arms=arms, hosts=("rtfm", "mil"), num_seeds=2), tmp_path
    )
    assert len(runs) == 8
    for run in runs:
        assert run.best_on_test >= run.figures.auc
    assert any(run.best_on_test > run.figures.auc for run in runs)
    assert runs[0].figures != runs[1].figures


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_seeds": 1}, "at least 2"),
        ({"arms": []}, "different names"),
        ({"arms": [ARMS[0], ARMS[0]]}, "different names"),
        (
            {"arms": [replace(ARMS[1], name=n) for n in ("a+b", "a b")]},
            "names of files",
        ),
        ({"hosts": (MEANS, MEANS)}, "hosts: expected different names"),
        ({"choices": {"per_video": 3.0}}, "per_video: each arm has its own"),
        ({"hosts": ("forest",)}, "unknown host 'forest'"),
        ({"hosts": ("hosts.means:absent",)}, "absent"),
        ({"choices": {"epoch": 2}}, "unknown choice epoch"),
    ],
)
def test_what_cannot_be_compared_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        comparison(**changes)


def test_hosts_are_found_by_name():
    from hosts import means

    assert find_host(MEANS) is means.train
    assert find_host("mlp") is compare.train_mlp


def test_a_host_of_wrong_scores_is_refused(tmp_path):
    with pytest.raises(ValueError, match="expected one score a snippet"):
        run_comparison(comparison(hosts=("hosts.means:train_wrong",)), tmp_path)


def test_differences_are_those_of_the_runs(done):
    _, runs = done
    results = summarise(comparison(), runs, against=("none", "jitter"))
    assert [result.arm for result in results] == ["none", "double", "jitter"]
    by_arm = {result.arm: result for result in results}
    assert set(by_arm["none"].differences) == {"jitter"}
    aucs = {
        arm.name: [run.figures.auc for run in runs if run.arm == arm.name]
        for arm in ARMS
    }
    for arm, values in aucs.items():
        assert by_arm[arm].values["auc"].tolist() == values
        assert np.isnan(by_arm[arm].values["best_on_test"]).all()
    found = by_arm["jitter"].differences["none"]["auc"]
    expected = np.mean(aucs["jitter"]) - np.mean(aucs["none"])
    assert found.mean == pytest.approx(expected)
    splits = [comparison().data.split(seed) for seed in range(3)]

    def resampled(arm):
        own = [run for run in runs if run.arm == arm]
        return resample(
            [
                (
                    [video.name for video in split.test],
                    Ranking(split.labels, split.to_frames(run.scores)),
                )
                for split, run in zip(splits, own, strict=True)
            ],
            num_resamples=500,
        )

    assert found == hierarchical_bootstrap(resampled("jitter"), resampled("none"))
    reverse = by_arm["none"].differences["jitter"]["auc"]
    assert reverse == pytest.approx((-found.mean, -found.high, -found.low))


def test_a_summary_lacks_no_run(done):
    _, runs = done
    with pytest.raises(ValueError, match="1 runs are missing"):
        summarise(comparison(), runs[:-1])
    with pytest.raises(ValueError, match="no arm cutmix"):
        summarise(comparison(), runs, against=("cutmix",))


def test_the_summary_is_written_as_tables_and_pictures(done, tmp_path):
    _, runs = done
    results = summarise(comparison(), runs, against=("none", "double"))
    write_summary(tmp_path, comparison(), runs, results)
    saved = json.loads((tmp_path / "summary.json").read_text())
    assert saved[2]["values"]["auc"] == results[2].values["auc"].tolist()
    assert saved[2]["values"]["best_on_test"] == [None] * 3
    assert saved[2]["differences"]["double"]["ap"]["low"] == (
        results[2].differences["double"]["ap"].low
    )
    with (tmp_path / "runs.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["auc"]) for row in rows] == [run.figures.auc for run in runs]
    assert (tmp_path / "summary.md").read_text() == format_tables(results) + "\n"
    for name in ("forest", "roc"):
        assert (tmp_path / f"{name}.png").stat().st_size > 5_000


def test_tables_show_percent_and_mark_what_is_clear(done):
    _, runs = done
    results = summarise(comparison(), runs, against=("none", "double"))
    lines = format_tables(results).splitlines()
    auc = 100 * results[2].values["auc"]
    assert f"| {auc.mean():.2f} +- {auc.std(ddof=1):.2f} " in lines[6]
    header = next(line for line in lines if "AUC - none" in line)
    assert header.index("AUC - none") < header.index("AP - double")
    for result in results:
        row = [line for line in lines if line.startswith(f"| {result.arm} ")][1]
        clear = [
            interval
            for found in result.differences.values()
            for interval in found.values()
            if interval.low > 0 or interval.high < 0
        ]
        assert row.count("*") == len(clear)


def test_runs_that_are_there_can_be_read_alone(done):
    folder, runs = done
    again = load_runs(comparison(num_seeds=2), folder)
    assert [(run.arm, run.seed) for run in again] == [
        (run.arm, run.seed) for run in runs if run.seed < 2
    ]


def test_the_papers_tables_are_experiments():
    assert {"all", "ablation", "table3", "table4", "table5", "table6"} == set(
        EXPERIMENTS
    )
    assert find_experiment("table4").hosts == ("rtfm",)
    widths = [
        (*arm.choices["hidden_dims"], arm.choices["latent_dim"])
        for arm in find_experiment("table5").arms[1:]
    ]
    assert widths == [
        (1024, 512, 256),
        (1024, 512, 256, 128),
        (1024, 512, 512, 256, 256),
    ]
    assert [arm.per_video for arm in find_experiment("table6").arms[1:]] == [0.5, 1, 2]
    with pytest.raises(ValueError, match="unknown experiment 'table7'"):
        find_experiment("table7")


def test_the_ablation_ends_at_the_robust_recipe():
    first, paper, *steps, last, graft = find_experiment("ablation").arms
    assert (first.name, paper.kind, last.kind) == ("none", "paper", "robust")
    assert graft.kind == "robust"
    assert graft.choices == {"translation": "graft", "norms": "free"}
    made = [Recipe.named("paper", **arm.choices) for arm in steps]
    for before, after in itertools.pairwise([Recipe.named("paper"), *made]):
        assert before != after
    # What is left are the number of pseudo videos and the name.
    robust = Recipe.named("robust")
    assert replace(made[-1], name="robust", per_video=robust.per_video) == robust


def test_arms_are_read_from_text():
    assert parse_arm("cutmix") == Arm("cutmix", "cutmix")
    assert parse_arm("a=paper:epochs=3,hidden_dims=64/32,selection=ranked") == Arm(
        "a",
        "paper",
        choices={"epochs": 3, "hidden_dims": (64, 32), "selection": "ranked"},
    )
    many = parse_arm("many=paper:per_video=3,epochs=1")
    assert many == Arm("many", "paper", 3.0, {"epochs": 1})
    assert many == Arm("many", "paper", choices={"per_video": 3.0, "epochs": 1})
    for text, message in (
        ("paste", "unknown arm 'paste'"),
        ("paper:epoch=3", "unknown choice epoch"),
        ("paper:epochs=many", "'many' is not readable"),
        ("paper:epochs=0", "at least 1"),
    ):
        with pytest.raises(ValueError, match=message):
            parse_arm(text)


def test_errors_of_a_broken_results_folder_name_it(done, tmp_path):
    (tmp_path / "compare.json").write_text("{")
    with pytest.raises((ValueError, CheckpointError), match=r"compare\.json"):
        run_comparison(comparison(), tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("000.json", b"{", "Expecting property name"),
        ("000.json", b"[]", "list indices"),
        ("000.json", b"[" * 10_000, "nested too deeply"),
        ("000.npy", b"\x93NUMPY\2\0\xff\xff\xff\xff", "claims 4294967295 bytes"),
        ("000.npy", b"", "not that of a .npy file"),
    ],
)
def test_a_broken_result_is_named(done, tmp_path, name, content, message):
    folder, _ = done
    shutil.copytree(folder, tmp_path / "again")
    path = next((tmp_path / "again" / "runs").rglob(name))
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"000\.json: not readable.*{message}"):
        run_comparison(comparison(), tmp_path / "again")


def test_scores_of_other_videos_are_refused(done, tmp_path):
    folder, _ = done
    shutil.copytree(folder, tmp_path / "again")
    path = next((tmp_path / "again" / "runs").rglob("000.npy"))
    np.save(path, np.zeros(7, np.float32))
    with pytest.raises(ValueError, match=r"the scores are float32 \(7,\); delete it"):
        run_comparison(comparison(), tmp_path / "again")


def test_results_of_other_features_in_the_same_files_are_refused(tmp_path):
    rng = np.random.default_rng(0)
    names = [f"v{i}" for i in range(12)]
    rows = [f"{name},{i % 2}" for i, name in enumerate(names)]
    for part, own in (("train", rows[:6]), ("test", rows[6:])):
        (tmp_path / f"{part}.csv").write_text("\n".join(["video,label", *own]))
    features = {name: rng.random((5, 3), dtype=np.float32) for name in names}
    truth = {name: np.repeat((0, i % 2), 40) for i, name in enumerate(names)}

    def run(arms, **changes):
        np.savez(
            tmp_path / "features.npz", **{**features, **changes.get("features", {})}
        )
        labels = {**truth, **changes.get("truth", {})}
        np.savez(
            tmp_path / "frame_labels_test.npz",
            **{name: labels[name] for name in names[6:]},
        )
        data = Data.named(str(tmp_path))
        own = Comparison(data, arms=arms, hosts=(MEANS,), num_seeds=2)
        return run_comparison(own, tmp_path / "results")

    run(ARMS[:1])
    run(ARMS[:2])
    for changes in (
        {"features": {"v3": features["v3"] + 1}},
        {"features": {"v8": features["v8"] + 1}},
        {"truth": {"v9": np.repeat((1, 0), 40)}},
    ):
        with pytest.raises(ValueError, match="which differs in content"):
            run(ARMS, **changes)


def test_results_of_another_version_are_refused(done, monkeypatch):
    folder, _ = done
    monkeypatch.setattr(compare.metadata, "version", lambda name: "99")
    with pytest.raises(ValueError, match="differs in library_version"):
        run_comparison(comparison(), folder)


def test_choices_are_checked_by_the_recipe_of_their_arm():
    """Of `one-class`, whose highest strength is above the paper's."""
    arm = parse_arm("x=one-class:min_strength=1.8")
    assert arm.recipe == Recipe.named("one-class", min_strength=1.8)
    arms = [Arm("none", "none"), Arm("one-class", "one-class")]
    comparison(arms=arms, choices=Recipe.parse("min_strength=1.8"))
    with pytest.raises(ValueError, match="expected min_strength <= max_strength"):
        comparison(arms=[*arms, Arm("paper", "paper")], choices={"min_strength": 1.8})
    with pytest.raises(ValueError, match="expected min_strength <= max_strength"):
        Recipe.parse("min_strength=2,max_strength=1")
