"""Calibration of several classes, against relplot and the formulas over rows."""

from __future__ import annotations

import numpy as np
import pytest
import relplot
from scipy.special import softmax

from whydrift.monitors.calibration_multiclass import add_meshes, class_meshes, multiclass_calibration

CLASSES = 4


def draw(rows=20_000, *, seed=0, sharpen=1.0, weights=False):
    """Probabilities (n, 4) of which labels are drawn; logged are sharper ones."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(0, 1.5, (rows, CLASSES))
    chance = softmax(truth, axis=1)
    label = (rng.random(rows)[:, None] > chance.cumsum(axis=1)).sum(axis=1)
    weight = rng.integers(1, 4, rows).astype(float) if weights else np.ones(rows)
    return softmax(truth * sharpen, axis=1), label, weight


def columns(p, label):
    """What each mesh is of: scores and outcomes over rows, the top label first."""
    named = p.argmax(axis=1)
    yield p.max(axis=1), (named == label).astype(float)
    for k in range(CLASSES):
        yield p[:, k], (label == k).astype(float)


@pytest.mark.parametrize("sharpen", [1.0, 1.8])
def test_smece_is_relplots(sharpen):
    p, label, weight = draw(sharpen=sharpen)
    found = multiclass_calibration(class_meshes(p, label, weight))
    for (score, outcome), errors in zip(columns(p, label), (found.top, *found.classes), strict=True):
        # relplot works on a grid of its own, and cuts its kernel off, which shows where errors are large.
        assert errors.smece == pytest.approx(relplot.smECE(score, outcome), abs=3e-3)


def test_brier_is_that_of_the_rows():
    p, label, weight = draw(sharpen=1.5, weights=True)
    found = multiclass_calibration(class_meshes(p, label, weight))
    for (score, outcome), errors in zip(columns(p, label), (found.top, *found.classes), strict=True):
        assert errors.brier == pytest.approx(np.average((outcome - score) ** 2, weights=weight), rel=1e-12)
    whole = np.average(((np.eye(CLASSES)[label] - p) ** 2).sum(axis=1), weights=weight)
    assert found.mean.brier * CLASSES == pytest.approx(whole, rel=1e-12)


def test_debiased_l2_is_that_of_the_rows():
    p, label, weight = draw(sharpen=1.8)
    found = multiclass_calibration(class_meshes(p, label, weight))
    for (score, outcome), errors in zip(columns(p, label), (found.top, *found.classes), strict=True):
        order = np.argsort(score)
        squared = 0.0
        for part in np.array_split(order, 15):
            rate, rows = outcome[part].mean(), part.size
            squared += rows / score.size * ((score[part].mean() - rate) ** 2 - rate * (1 - rate) / (rows - 1))
        assert errors.l2 == pytest.approx(np.sqrt(max(squared, 0.0)), abs=3e-3)


def test_scores_that_are_right_have_hardly_any_error_and_sharper_ones_have():
    right = multiclass_calibration(class_meshes(*draw()))
    wrong = multiclass_calibration(class_meshes(*draw(sharpen=1.8)))
    assert right.largest.smece < 0.012 < 0.05 < wrong.top.smece
    assert wrong.mean.smece > 2 * right.mean.smece


def test_one_wrong_class_is_named():
    p, label, weight = draw()
    label = np.where((label == 2) & (np.arange(label.size) % 2 == 0), 0, label)  # half of class 2 is called 0
    found = multiclass_calibration(class_meshes(p, label, weight))
    assert found.worst in {0, 2}
    table = np.array([[e.smece, e.brier, e.l2] for e in found.classes])
    assert (found.largest.smece, found.largest.brier, found.largest.l2) == tuple(table.max(axis=0))
    assert (found.mean.smece, found.mean.brier, found.mean.l2) == pytest.approx(tuple(table.mean(axis=0)))


def test_two_classes_are_the_binary_mesh_twice():
    p, label, weight = draw()
    binary = np.column_stack([1 - p[:, 0], p[:, 0]])
    found = multiclass_calibration(class_meshes(binary, (label == 0).astype(int), weight))
    assert found.classes[0].smece == pytest.approx(found.classes[1].smece, abs=1e-9)
    assert found.classes[0].brier == pytest.approx(found.classes[1].brier, rel=1e-12)


def test_parts_add_up_to_the_whole():
    p, label, weight = draw(999, weights=True)
    cuts = [slice(0, 100), slice(100, 700), slice(700, 999)]
    together = add_meshes(tuple(class_meshes(p[c], label[c], weight[c]) for c in cuts))
    whole = class_meshes(p, label, weight)
    for part, one in zip((together.top, *together.classes), (whole.top, *whole.classes), strict=True):
        np.testing.assert_allclose(part.labelled, one.labelled, atol=1e-9)
        np.testing.assert_allclose(part.positive, one.positive, atol=1e-9)
        assert part.squared_error == pytest.approx(one.squared_error)
        assert part.rows == pytest.approx(one.rows)


def test_no_rows_have_no_error():
    found = multiclass_calibration(class_meshes(np.zeros((0, 3)), np.zeros(0, dtype=int), np.zeros(0)))
    assert found.largest == found.mean == found.top
    assert found.top.smece == found.top.brier == found.top.l2 == 0.0


@pytest.mark.parametrize(
    ("p", "label", "said"), [([[0.5, 0.5]], [2], "classes from 0 to 1"), ([[1.5, -0.5]], [0], "score mesh")]
)
def test_what_is_no_probability_or_class_is_refused(p, label, said):
    with pytest.raises(ValueError, match=said):
        class_meshes(np.array(p), np.array(label), np.ones(1))
