"""What calibration must do on any mesh: stay finite, keep its bounds, and not care for the unit of weight."""

import math
from dataclasses import asdict
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from whydrift.monitors.calibration import (
    MESH,
    POINTS,
    ScoreMesh,
    brier,
    brier_variance,
    corp,
    cox,
    debiased_l2,
    reliability,
    smece,
    spiegelhalter,
    split,
)

SCORES = arrays(np.float64, st.integers(0, 50), elements=st.floats(0, 1))


@st.composite
def meshes(draw, *, extreme=True):
    """Meshes with holes, with one point only, of one class only, and if extreme of weights from 1e-300 to 1e300."""
    occupied = draw(st.lists(st.integers(0, MESH - 1), max_size=12, unique=True))

    def values(elements):
        spread = np.zeros(MESH)
        spread[occupied] = draw(st.lists(elements, min_size=len(occupied), max_size=len(occupied)))
        return spread

    labelled = values(st.floats(0, 1, allow_subnormal=False) if extreme else st.floats(1e-6, 1))
    if extreme:
        labelled *= draw(st.sampled_from([1e-300, 1.0, 1e6, 1e300]))
    positive = labelled * values(st.sampled_from([0.0, 0.25, 1.0]))
    error = float(np.sum(positive * (1 - POINTS) ** 2 + (labelled - positive) * POINTS**2))
    rows = draw(st.floats(0, 1e12 if extreme else 1e6, allow_subnormal=False))
    return ScoreMesh(labelled, positive, error, rows)


def measures(mesh):
    fit = cox(mesh)
    return {
        "smece": smece(mesh),
        "brier": brier(mesh),
        "brier_variance": brier_variance(mesh),
        "spiegelhalter": spiegelhalter(mesh),
        "debiased_l2": debiased_l2(mesh),
        **dict(zip(("miscalibration", "discrimination", "uncertainty"), corp(mesh), strict=True)),
        **(asdict(fit) if fit else {}),
    }


@given(meshes())
def test_every_measure_of_every_mesh_is_finite(mesh):
    assert all(math.isfinite(value) for value in measures(mesh).values())


@given(meshes())
def test_measures_keep_their_bounds(mesh):
    found = measures(mesh)
    bounded = ("smece", "brier", "debiased_l2", "miscalibration", "discrimination", "uncertainty")
    assert all(0 <= found[name] <= 1 + 1e-12 for name in bounded)
    assert all(value >= 0 for name, value in found.items() if name.endswith("variance"))
    assert found["discrimination"] <= found["uncertainty"] <= 0.25 + 1e-12


@given(meshes(extreme=False))
def test_the_parts_sum_to_the_brier_score(mesh):
    miscalibration, discrimination, uncertainty = corp(mesh)
    assert miscalibration - discrimination + uncertainty == pytest.approx(brier(mesh), abs=1e-9)


@given(meshes(extreme=False), st.sampled_from([2.0**-900, 2.0**-3, 2.0**900]))
def test_the_unit_of_weight_does_not_matter(mesh, unit):
    rescaled = ScoreMesh(mesh.labelled * unit, mesh.positive * unit, mesh.squared_error * unit, mesh.rows)
    assert measures(rescaled) == measures(mesh)


@given(meshes(extreme=False))
def test_turning_labels_and_scores_around_turns_the_error_around(mesh):
    turned = ScoreMesh(mesh.labelled[::-1], (mesh.labelled - mesh.positive)[::-1], mesh.squared_error, mesh.rows)
    assert smece(turned) == pytest.approx(smece(mesh), abs=1e-7)
    assert brier(turned) == pytest.approx(brier(mesh), rel=1e-12)
    here, there = cox(mesh), cox(turned)
    assert (here is None) == (there is None)
    if here and there and here.slope_variance < 1:
        assert there.intercept_at_slope_one == pytest.approx(-here.intercept_at_slope_one, abs=1e-5)
        assert there.slope == pytest.approx(here.slope, abs=1e-3)


@given(meshes(), st.integers(0, 2**32 - 1))
def test_diagrams_rise_and_their_bands_are_rates(mesh, seed):
    bins = reliability(mesh, np.random.default_rng(seed), resamples=20)
    assert all(0 <= b.lower <= b.upper <= 1 + 1e-12 for b in bins)
    assert all(0 <= b.predicted <= 1 and 0 <= b.observed <= 1 + 1e-12 and b.rows > 0 for b in bins)
    for left, right in pairwise(bins):
        assert left.predicted < right.predicted
        assert left.observed <= right.observed


@given(SCORES, st.integers(0, 50))
def test_splitting_in_batches_is_splitting_at_once(scores, cut):
    lower, part = split(scores)
    batches = [split(scores[:cut]), split(scores[cut:])]
    np.testing.assert_array_equal(lower, np.concatenate([batch[0] for batch in batches]))
    np.testing.assert_array_equal(part, np.concatenate([batch[1] for batch in batches]))


@given(SCORES)
def test_splitting_keeps_scores(scores):
    lower, part = split(scores)
    assert ((lower >= 0) & (lower <= MESH - 2) & (part >= 0) & (part <= 1)).all()
    np.testing.assert_allclose(POINTS[lower] * (1 - part) + POINTS[lower + 1] * part, scores, rtol=0, atol=1e-15)
