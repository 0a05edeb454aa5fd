"""Quality gates: are pseudo videos any good, before a host is trained on them?

Pseudo videos of held-out training videos are compared with real held-out ones. A
figure stands beside its floor, the same between two halves of the real videos, which is
what two samples of the same thing differ by, and beside the contrast between the two
classes. Snippets of one video resemble each other: whole videos are drawn and left out.

Everything is computed on `(T, D)`, the first crop.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from scipy.stats import ks_2samp

from .extras import require
from .gate_samples import (
    MAX_ROWS,
    Clip,
    Draw,
    Material,
    Rows,
    Sample,
    count_meant,
    meant_rows,
    norms_of,
    one_a_video,
    projection,
    rows_of,
)
from .metrics import roc_auc
from .vae import ABNORMAL, NORMAL, MultiTaskVAE

REPEATS = 20  # draws of halves, and of one snippet a video
CLASSIFIER_REPEATS = 5
TREES = 200
NEIGHBOURS = 5
ACTIVE_VARIANCE = 0.01
TOP_SHARE = 3 / 32  # of a video's snippets: RTFM trains on 3 segments of 32


class Gate(NamedTuple):
    """One figure and its verdict.

    Attributes:
        name: What is measured.
        value: Of the pseudo videos.
        floor: The same of real videos; None if there is none.
        contrast: The same between the two classes of real videos, where it is needed.
        accept: What passes, in words.
        passed: The verdict.
        meaning: What the figure tells, for a reader who never saw it.
    """

    name: str
    value: float
    floor: float | None
    contrast: float | None
    accept: str
    passed: bool
    meaning: str


def judge(material: Material) -> list[Gate]:
    """Compute all gates of the pseudo videos of one class.

    Raises:
        ImportError: If scikit-learn is not installed; it names the extra.
    """
    draws = [Draw(material, repeat) for repeat in range(REPEATS)]
    return [
        *norms_and_spread(draws),
        _frechet(draws, material),
        _coverage(draws, material),
        *_classifier(draws[:CLASSIFIER_REPEATS]),
        _validity(material),
        _lag_one(material),
        _memorisation(material),
        *largest_norms(material),
    ]


def judge_model(
    vae: MultiTaskVAE,
    normal: Sequence[Clip],
    abnormal: Sequence[Clip] | None = None,
) -> list[Gate]:
    """Compute the gates of the model itself, on held-out real videos.

    Args:
        vae: The model.
        normal: Held-out normal videos.
        abnormal: Held-out abnormal videos; meant are the selected snippets. None
            where the model learned of none.
    """
    gates = []
    for label, clips in ((NORMAL, normal), (ABNORMAL, abnormal)):
        if clips is None:
            continue
        name = ("normal", "abnormal")[label]
        means, reconstruction, rows = reconstruct(vae, clips, label)
        active = float((means.var(axis=0) > ACTIVE_VARIANCE).mean())
        error = ((rows - reconstruction) ** 2).sum()
        explained = 1 - float(error / ((rows - rows.mean(axis=0)) ** 2).sum())
        gates += [
            Gate(
                f"active units, {name}",
                active,
                None,
                None,
                "at least 0.30",
                active >= 0.3,
                "share of latent units that vary from snippet to snippet; the others "
                "carry nothing",
            ),
            Gate(
                f"explained variance, {name}",
                explained,
                None,
                None,
                "above 0",
                explained > 0,
                "share of the variance of unseen snippets that the decoder of their "
                "own class gives back",
            ),
        ]
    return gates


def reconstruct(
    vae: MultiTaskVAE, clips: Sequence[Clip], label: int
) -> tuple[Rows, Rows, Rows]:
    """Encode and decode the meant snippets: latent means, reconstruction, the rows."""
    rows = meant_rows(clips)
    weight = vae.mean_head.weight
    with torch.no_grad():
        means, _ = vae.encode(torch.from_numpy(rows).to(weight))
        decoded = vae.decode(means, label)
    return means.cpu().float().numpy(), decoded.cpu().float().numpy(), rows


def lag_one(features: Rows) -> float:
    """Correlation of neighbours in time of one video `(T, D)`, over all features."""
    centred = features.astype(np.float64) - features.mean(axis=0)
    total = (centred**2).sum()
    if not total:
        return 1.0
    return float((centred[1:] * centred[:-1]).sum() / total)


Figure = Callable[[Sample, Sample], float]


class _Three(NamedTuple):
    """A figure against the second real half: of pseudo, of real, of the other class."""

    value: float
    floor: float
    contrast: float


def _compare(draws: Sequence[Draw], figure: Figure) -> _Three:
    values = []
    for draw in draws:
        again = draw.again
        values.append(
            [figure(one, again) for one in (draw.pseudo, draw.real, draw.other)]
        )
    return _Three(*np.mean(values, axis=0).tolist())


def norms_and_spread(draws: Sequence[Draw]) -> list[Gate]:
    """Compare norms and variance of generated and of real snippets."""

    def norm_ratio(one: Sample, two: Sample) -> float:
        return float(norms_of(one.rows).mean() / norms_of(two.rows).mean())

    def gap(one: Sample, two: Sample) -> float:
        return float(ks_2samp(norms_of(one.rows), norms_of(two.rows)).statistic)

    def variance_ratio(one: Sample, two: Sample) -> float:
        return float(one.rows.var(axis=0).sum() / two.rows.var(axis=0).sum())

    norm = _compare(draws, norm_ratio)
    gaps = _compare(draws, gap)
    variance = _compare(draws, variance_ratio)
    low, high = np.quantile([norm_ratio(d.real, d.again) for d in draws], (0.05, 0.95))
    low, high = min(low, 0.95), max(high, 1.05)
    return [
        Gate(
            "norm ratio",
            norm.value,
            norm.floor,
            norm.contrast,
            f"{low:.2f} to {high:.2f}",
            bool(low <= norm.value <= high),
            "mean L2 norm of generated over real snippets; a host that picks segments "
            "by magnitude overlooks shrunk ones",
        ),
        Gate(
            "norm gap",
            gaps.value,
            gaps.floor,
            gaps.contrast,
            f"at most {gaps.floor + 0.3:.2f}",
            gaps.value <= gaps.floor + 0.3,
            "largest distance between the distributions of the norms (Kolmogorov and "
            "Smirnov), from 0 to 1",
        ),
        Gate(
            "variance ratio",
            variance.value,
            variance.floor,
            variance.contrast,
            "above 0.70",
            variance.value > 0.7,
            "total variance of generated over real snippets; a decoder that returns "
            "averages has little",
        ),
    ]


def _frechet(draws: Sequence[Draw], material: Material) -> Gate:
    project = projection(material)

    def distance(one: Sample, two: Sample) -> float:
        first, second = project(one.rows), project(two.rows)
        covariances = [
            np.atleast_2d(np.cov(rows, rowvar=False)) for rows in (first, second)
        ]
        shift = ((first.mean(axis=0) - second.mean(axis=0)) ** 2).sum()
        roots = np.linalg.eigvals(covariances[0] @ covariances[1]).real.clip(min=0)
        traces = sum(float(np.trace(c)) for c in covariances)
        return float(shift + traces - 2 * np.sqrt(roots).sum())

    found = _compare(draws, distance)
    accept = (found.floor + found.contrast) / 2
    return Gate(
        "Frechet distance",
        found.value,
        found.floor,
        found.contrast,
        f"below {accept:.3g}",
        found.value < accept,
        "distance of the generated from the real snippets of the class, each taken "
        "for a Gaussian; passes nearer to real than to the other class",
    )


def _coverage(draws: Sequence[Draw], material: Material) -> Gate:
    """Coverage of Naeem et al. (2020), and recall, of one snippet a video.

    Coverage alone would pass a collapsed decoder: in many dimensions the mean is
    nearer to every snippet than its neighbours are. Hence the neighbourhoods of the
    generated snippets count, too, as in recall (Kynkaanniemi et al., 2019).
    """
    neighbours = require("sklearn.neighbors", extra="eval").NearestNeighbors
    project = projection(material)

    def coverage(one: Sample, two: Sample) -> float:
        made, real = (project(sample.rows) for sample in (one, two))
        count = min(NEIGHBOURS, len(real) - 1)
        of_real, of_made = (
            neighbours(n_neighbors=count).fit(rows).kneighbors()[0][:, -1]
            for rows in (real, made)
        )
        apart = cdist(real, made)
        covered = (apart <= of_real[:, None]).any(axis=1)
        recalled = (apart <= of_made).any(axis=1)
        return float((covered & recalled).mean())

    values = []
    for draw in draws:
        thin = [
            one_a_video(one, draw.rng)
            for one in (draw.pseudo, draw.real, draw.other, draw.again)
        ]
        size = min(len(one.rows) for one in thin)
        if size < 2:
            continue
        thin = [one.take(np.arange(size)) for one in thin]
        values.append([coverage(one, thin[-1]) for one in thin[:3]])
    found = _Three(*np.mean(values, axis=0).tolist())
    accept = 0.8 * found.floor
    return Gate(
        "coverage",
        found.value,
        found.floor,
        found.contrast,
        f"at least {accept:.2f}",
        found.value >= accept,
        "share of real videos that have a generated snippet in their neighbourhood "
        "and lie in the neighbourhood of one; small where all generated ones look "
        "alike; passes at 0.8 of real",
    )


def _classifier(draws: Sequence[Draw]) -> list[Gate]:
    """Two-sample test by a classifier that never saw the videos it judges."""
    values = [
        [told_apart(x, d.again) for x in (d.pseudo, d.real, d.other)] for d in draws
    ]
    found = _Three(*np.mean(values, axis=0).tolist())
    # Of few videos, two halves of one class can be told apart by chance alone.
    least = max(0.6, float(np.quantile([floor for _, floor, _ in values], 0.95)))
    accept = (max(found.floor, 0.5) + max(found.contrast, 0.5)) / 2
    return [
        Gate(
            "told from real",
            found.value,
            found.floor,
            found.contrast,
            f"below {accept:.2f}",
            found.value < accept,
            "AUC of a linear classifier that tells generated from real snippets of "
            "the class, on other videos; 0.5 is not at all; passes where it is nearer "
            "to that than to how well it tells the classes",
        ),
        Gate(
            "classes differ",
            found.contrast,
            found.floor,
            None,
            f"above {least:.2f}",
            found.contrast > least,
            "AUC of the same classifier for the two real classes, unseen videos; near "
            "0.5, or near what it is for two halves of one class, the selected "
            "snippets are no class of their own, and nothing can be learned of them",
        ),
    ]


def told_apart(one: Sample, two: Sample) -> float:
    """AUC of a linear classifier of two samples, on videos that it never saw."""
    pipeline = require("sklearn.pipeline", extra="eval").make_pipeline
    scaler = require("sklearn.preprocessing", extra="eval").StandardScaler
    logistic = require("sklearn.linear_model", extra="eval").LogisticRegression
    selection = require("sklearn.model_selection", extra="eval")
    rows = np.concatenate((one.rows, two.rows))
    truth = np.repeat((1, 0), (len(one.rows), len(two.rows)))
    groups = np.concatenate((one.video, two.video + one.video.max() + 1))
    folds = min(len(set(one.video)), len(set(two.video)), 5)
    if folds < 2:
        return 0.5
    split = selection.StratifiedGroupKFold(folds, shuffle=True, random_state=0)
    scores = selection.cross_val_predict(
        pipeline(scaler(), logistic(C=0.01, max_iter=1000)),
        rows,
        truth,
        groups=groups,
        cv=split,
        method="decision_function",
    )
    return roc_auc(truth, scores)


def _directions(rows: Rows) -> NDArray[np.float64]:
    return rows / np.maximum(norms_of(rows)[:, None], 1e-12)


def _validity(material: Material) -> Gate:
    """Ask an oracle of another kind, trained on other videos, for the class."""
    forest = require("sklearn.ensemble", extra="eval").RandomForestClassifier
    rng = np.random.default_rng(material.seed)
    known = (material.training, material.training_other)
    totals = [count_meant(clips) for clips in known]
    size = min(MAX_ROWS, *totals)
    rates = []
    view: Callable[[Rows], NDArray[Any]]
    for view in (np.asarray, _directions):
        drawn = [
            rows_of(clips, rng.permutation(total)[:size]).rows
            for clips, total in zip(known, totals, strict=True)
        ]
        oracle = forest(TREES, random_state=material.seed, min_samples_leaf=2)
        oracle.fit(view(np.concatenate(drawn)), np.repeat((1, 0), size))
        found = []  # mean rate of the videos, and its squared standard error
        for clips in (material.pseudo, material.real):
            own_rates = np.array(
                [
                    oracle.predict(view(clip.features[clip.mask])).mean()
                    for clip in clips
                    if clip.mask.any()
                ]
            )
            error = own_rates.var(ddof=1) / len(own_rates)
            found.append((float(own_rates.mean()), float(error)))
        slack = max(0.1, 3 * (found[0][1] + found[1][1]) ** 0.5)
        rates.append((found[0][0], found[1][0], found[1][0] - slack))
    value, floor, accept = min(rates, key=lambda one: one[0] - one[2])
    return Gate(
        "label validity",
        value,
        floor,
        None,
        f"at least {accept:.2f}",
        value >= accept,
        "share that a random forest, trained on other videos, takes for the class they "
        "claim; of raw and of L2-normalised features the worse one",
    )


def _lag_one(material: Material) -> Gate:
    value, floor = (
        float(np.mean([lag_one(clip.features) for clip in clips]))
        for clips in (material.pseudo, material.real)
    )
    lags = np.array([lag_one(clip.features) for clip in material.real])
    # Three standard errors of a difference: what two sets of real videos differ by.
    counts = len(material.real), len(material.pseudo)
    slack = max(0.05, 3 * float(lags.std(ddof=1)) * sum(1 / n for n in counts) ** 0.5)
    return Gate(
        "lag-1 correlation",
        value,
        floor,
        None,
        f"{floor - slack:.2f} to {floor + slack:.2f}",
        abs(value - floor) <= slack,
        "how much a snippet resembles the one before, relative to its video; too low "
        "where neighbours were drawn without regard for each other",
    )


def _memorisation(material: Material) -> Gate:
    neighbours = require("sklearn.neighbors", extra="eval").NearestNeighbors
    rng = np.random.default_rng(material.seed)
    known = meant_rows(material.training)
    index = neighbours(n_neighbors=1).fit(known)
    distances = []
    for clips in (material.pseudo, material.real):
        rows = rows_of(clips, rng.permutation(count_meant(clips))[:MAX_ROWS]).rows
        distances.append(float(np.median(index.kneighbors(rows)[0])))
    value = distances[0] / max(distances[1], 1e-12)
    return Gate(
        "novelty",
        value,
        1.0,
        None,
        "at least 0.50",
        value >= 0.5,
        "median distance to the nearest training snippet, over that of real unseen "
        "snippets; near 0 where training snippets are repeated",
    )


def largest_norms(material: Material) -> list[Gate]:
    """Ask whether a host that selects by magnitude sees what was generated."""
    if all(clip.mask.all() for clip in material.pseudo):
        return []  # all of a pseudo normal video is
    value, floor = (
        float(np.mean([_share_of_largest(clip) for clip in clips]))
        for clips in (material.pseudo, material.real)
    )
    in_part = not all(clip.mask.all() for clip in material.real)
    chance = float(np.mean([clip.mask.mean() for clip in material.pseudo]))
    return [
        Gate(
            "largest norms",
            value,
            floor if in_part else None,
            chance,
            "at least 0.80",
            value >= 0.8,
            "share of generated snippets among the tenth of a pseudo video with the "
            "largest norms, on which hosts that select by magnitude train; real: of "
            "selected ones in real videos; classes: if norms told nothing",
        )
    ]


def _share_of_largest(clip: Clip) -> float:
    count = max(1, round(TOP_SHARE * len(clip.mask)))
    largest = np.argsort(-norms_of(clip.features), kind="stable")[:count]
    return float(clip.mask[largest].mean())
