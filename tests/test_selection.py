"""Selection: ties, messages and records, as mutants of it showed to be untested."""

import numpy as np
import pytest

from vad_pseudoaug.selection import Selection, select_above, select_ranked

HIGH, LOW = np.array([0.2, 0.9]), np.array([0.1, 0.4])


def test_of_equal_scores_the_first_are_selected():
    tied = np.ones(400)
    tied[::3] = 0.5
    found = select_ranked([tied], [np.zeros(9)], top_share=0.1)
    expected = np.flatnonzero(tied == 1)[:40]
    np.testing.assert_array_equal(np.flatnonzero(found.masks[0]), expected)
    assert found.weights is None  # all alike, unless it is asked for


def test_where_nothing_is_selected_the_highest_score_is_told():
    with pytest.raises(
        ValueError, match=r"above 0.5, the highest is 0.400: lower .* t"
    ):
        select_above([LOW, LOW / 2])
    with pytest.raises(ValueError, match=r"train the baseline for longer$"):
        select_above([LOW])


def test_videos_without_a_selected_snippet_are_named():
    with pytest.warns(
        UserWarning, match=r"^1 of 2 .* above 0.5 and .*: abnormal\[1\]$"
    ):
        select_above([HIGH, LOW])
    with pytest.warns(UserWarning, match=r"decoder: b$"):
        select_above([HIGH, LOW], titles=["a", "b"])


def test_what_is_recorded_of_a_selection():
    masks = (np.array([True, False, True]), np.zeros(2, bool))
    recorded = Selection(masks, (1,)).to_dict()
    digest = recorded.pop("digest")
    assert recorded == {
        "num_selected": 2,
        "num_snippets": 5,
        "selected_per_video": [2, 0],
        "videos_without_selection": [1],
    }
    assert Selection(masks, (1,)).to_dict()["digest"] == digest
    weights = tuple(mask.astype(np.float32) for mask in masks)
    others = (
        Selection((np.array([True, True, False]), np.zeros(2, bool)), (1,)),
        Selection((masks[0][:2], np.append(masks[0][2:], masks[1])), (1,)),
        Selection(masks, (1,), weights),
        Selection(masks, (1,), (2 * weights[0], weights[1])),
    )
    found = {digest, *(other.to_dict()["digest"] for other in others)}
    assert len(found) == 1 + len(others)


def test_a_share_is_what_it_says_though_it_is_no_binary_fraction():
    scores = np.linspace(1, 2, 100)
    found = select_ranked([scores], [np.zeros(2)], top_share=0.55)
    assert 0.55 * 100 > 55
    assert found.num_selected == 55
