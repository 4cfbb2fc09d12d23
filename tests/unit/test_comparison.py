"""The gate's arithmetic: the jackknife is the textbook's, and a check passes, fails or was not judged."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from whydrift.monitors.calibration import MESH, POINTS, ScoreMesh, smece
from whydrift.monitors.comparison import Comparison, GateCheck, Margins, PairedWindow, Side, compare

MARGINS = Margins(
    min_share_cosine=0.9,
    max_brier_increase=0.01,
    max_smece_increase=0.05,
    max_slice_loss_ratio=1.1,
    confidence=0.95,
    min_windows=7,
    min_slice_rows=200,
)
CALIBRATED = POINTS


def mesh(rate, rows=1000.0):
    labelled = np.full(MESH, rows / MESH)
    return ScoreMesh(labelled, labelled * rate, squared_error=float((labelled * rate * (1 - rate)).sum()), rows=rows)


def window(champion=100.0, candidate=100.0, rows=1000, slices=None, absolute=(3.0, 1.0), other=(3.0, 1.0), rate=None):
    """One window; `slices` gives (rows, champion's loss, candidate's loss) by name."""
    slices = slices or {}
    count = {"": rows, **{name: r for name, (r, _, _) in slices.items()}}
    return PairedWindow(
        champion=Side(
            np.array(absolute), mesh(CALIBRATED), {"": champion, **{n: old for n, (_, old, _) in slices.items()}}
        ),
        candidate=Side(
            np.array(other),
            mesh(CALIBRATED if rate is None else rate),
            {"": candidate, **{n: new for n, (_, _, new) in slices.items()}},
        ),
        weight={name: float(r) for name, r in count.items()},
        rows=count,
    )


def by_name(windows, margins=MARGINS, *, classifier=True):
    return {check.name: check for check in compare(windows, margins, classifier=classifier).checks}


def test_equal_models_pass_everything():
    windows = [window(100 + i, 100 + i, slices={"s=a": (100, 5.0 + i, 5.0 + i)}) for i in range(8)]
    result = compare(windows, MARGINS, classifier=True)
    assert result.passed is True
    assert [c.name for c in result.checks] == ["share_cosine", "brier_increase", "smece_increase", "loss_ratio:s=a"]
    assert [c.value for c in result.checks] == pytest.approx([1.0, 0.0, 0.0, 1.0])


def test_the_bound_of_a_mean_is_students():
    """Equal weights make the Brier increase a mean over windows, and the jackknife's error that of a mean."""
    rng = np.random.default_rng(0)
    increase = rng.normal(0.002, 0.01, 12)
    windows = [window(100.0, 100.0 + 1000 * d) for d in increase]
    found = by_name(windows)["brier_increase"]
    level = 1 - 0.05 / 3  # three checks share the confidence
    upper = stats.t.interval(2 * level - 1, 11, loc=increase.mean(), scale=stats.sem(increase))[1]
    assert found.value == pytest.approx(increase.mean())
    assert found.bound == pytest.approx(upper)


def test_the_bound_of_a_ratio_is_near_the_delta_methods():
    rng = np.random.default_rng(1)
    champion = rng.uniform(80, 120, 60)
    candidate = champion * rng.normal(1.05, 0.05, 60)
    margins = replace(MARGINS, max_slice_loss_ratio=1.5)
    windows = [window(a, b) for a, b in zip(champion, candidate, strict=True)]
    found = by_name(windows, margins, classifier=False)["loss_ratio"]
    ratio = candidate.sum() / champion.sum()
    error = stats.sem(candidate - ratio * champion) / champion.mean()
    assert found.value == pytest.approx(ratio)
    assert found.bound == pytest.approx(ratio + stats.t.ppf(1 - 0.05 / 2, 59) * error, rel=2e-3)


@pytest.mark.parametrize(
    ("mean", "spread", "passed"),
    [(0.0, 0.001, True), (0.005, 0.001, True), (0.02, 0.001, False), (0.005, 0.02, False)],
)
def test_non_inferiority_asks_the_bound_and_not_the_value(mean, spread, passed):
    steps = np.array([-1.0, 1.0] * 5) * spread + mean
    found = by_name([window(100.0, 100.0 + 1000 * d) for d in steps])["brier_increase"]
    assert found.passed is passed
    assert found.value == pytest.approx(mean)
    assert f"{found.bound:.4g}" in found.message


def test_reasons_that_turned_round_fail():
    windows = [window(absolute=(3.0, 1.0), other=(1.0, 3.0)) for _ in range(8)]
    result = compare(windows, MARGINS, classifier=True)
    (failed,) = [c for c in result.checks if c.passed is False]
    assert failed.name == "share_cosine"
    assert failed.value == pytest.approx(6 / 10)
    assert result.passed is False


def test_the_minimum_is_held_against_the_lower_bound():
    windows = [window(other=(3.0, 1.0 + 0.3 * (-1) ** i)) for i in range(8)]
    found = by_name(windows)["share_cosine"]
    assert found.bound < found.value
    assert "at least" in found.message


def test_worse_calibration_fails():
    rate = np.clip(POINTS + 0.1, 0, 1)
    found = by_name([window(rate=rate) for _ in range(8)])["smece_increase"]
    assert found.value == pytest.approx(smece(mesh(rate, 8000.0)) - smece(mesh(CALIBRATED, 8000.0)))
    assert found.passed is False


def test_a_slice_that_got_worse_fails_alone():
    windows = [window(slices={"s=a": (100, 10.0, 10.0), "s=b": (100, 10.0, 13.0)}) for _ in range(8)]
    result = compare(windows, MARGINS, classifier=True)
    assert [c.name for c in result.checks if c.passed is False] == ["loss_ratio:s=b"]
    assert result.passed is False


def test_small_slices_are_listed_and_not_judged():
    windows = [window(slices={"s=a": (24, 10.0, 90.0), "s=b": (25, 10.0, 10.0)}) for _ in range(8)]
    result = compare(windows, MARGINS, classifier=True)
    assert result.too_small == ("s=a",)
    assert [c.name for c in result.checks][-1] == "loss_ratio:s=b"
    assert result.passed is True


def test_windows_without_the_slice_do_not_count_for_it():
    with_slice = [window(slices={"s=a": (100, 10.0, 10.0)}) for _ in range(5)]
    found = by_name([*with_slice, *[window() for _ in range(5)]])["loss_ratio:s=a"]
    assert found.passed is None
    assert found.value is None
    assert "5 windows have what it takes, 7 are needed" in found.message


def test_too_few_windows_are_not_judged():
    result = compare([window() for _ in range(6)], MARGINS, classifier=True)
    assert {c.passed for c in result.checks} == {None}
    assert result.passed is None
    assert compare([], MARGINS, classifier=True).passed is None


def test_labels_missing_leave_the_attributions_judged():
    windows = [window(rows=0) for _ in range(8)]
    result = compare(windows, MARGINS, classifier=True)
    assert [c.passed for c in result.checks] == [True, None, None]
    assert result.passed is None


@pytest.mark.parametrize("binary", [True, False])
def test_what_is_not_defined_is_not_judged(binary):
    dead = [window(0.0, 0.0, absolute=(0.0, 0.0), slices={"s=a": (100, 0.0, 1.0)}) for _ in range(8)]
    checks = by_name(dead, classifier=binary)
    for name in ("share_cosine", "loss_ratio:s=a", *([] if binary else ["loss_ratio"])):
        assert checks[name].passed is None
        assert checks[name].bound is None
        assert "not defined" in checks[name].message


@pytest.mark.parametrize(
    ("passed", "together"),
    [
        ([True, True], True),
        ([True, None], None),
        ([True, False], False),
        ([None, False], False),
        ([None], None),
        ([], None),
    ],
)
def test_all_must_have_run_and_passed(passed, together):
    checks = tuple(GateCheck(name="n", passed=p, value=None, bound=None, limit=1.0, message="") for p in passed)
    assert Comparison(checks, ()).passed is together
