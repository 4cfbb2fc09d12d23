"""What each feature contributes: identities that hold to the last digits, and variances that resampling confirms."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit
from sklearn.linear_model import LinearRegression

from whydrift.monitors.attribution import SHARE_FLOOR, Cells, cell_rates, cells, moments, split_shift
from whydrift.monitors.binning import MISSING, fit_attribution_bins, fit_bins
from whydrift.monitors.explained_sums import summarise
from whydrift.monitors.summary import Explained, Group, Layout, WindowSummary, merge

NAMES = ("u", "v", "c")


def draw(seed, rows, shift=0.0):
    rng = np.random.default_rng(seed)
    u = rng.normal(shift, 1 + shift / 4, rows)
    frame = pd.DataFrame({"u": u, "v": 0.5 * u + rng.normal(size=rows), "c": rng.choice(["a", "b", "d"], rows)})
    frame.loc[rng.random(rows) < 0.1, "v"] = np.nan
    return frame


LAYOUT = Layout(
    task="regression",
    link="identity",
    scale=2.0,
    loss_scale=2.0,
    features=tuple(fit_bins(name, draw(0, 3000)[name]) for name in NAMES),
    attributions=tuple(fit_attribution_bins(name, np.linspace(-1.0, 1.0, 201)) for name in NAMES),
    groups=(Group("both", ("u", "v")),),
    slices=(),
)


def encode(frame):
    return frame.assign(v=frame["v"].fillna(0.0), c=frame["c"].map({"a": 0.0, "b": 1.0, "d": 3.0}))


def linear_summary(model, background, frame, weight=None):
    """The exact attributions of a linear model against a fixed background: coef * (x - mean)."""
    x, mean = encode(frame).to_numpy(), encode(background).to_numpy().mean(axis=0)
    values = model.coef_ * (x - mean)
    base = float(model.predict(mean[None, :])[0])
    weight = np.ones(len(frame)) if weight is None else weight
    return summarise(Explained(frame, model.predict(x), weight, values, model.predict(x), base), LAYOUT), values


@pytest.fixture(scope="module")
def model():
    frame = draw(0, 3000)
    x = encode(frame).to_numpy()
    target = x @ [1.0, -2.0, 0.5] + np.random.default_rng(9).normal(size=len(x))
    return LinearRegression().fit(x, target)


def test_shifts_of_a_linear_model_add_up_to_the_shift_of_its_output(model):
    background = draw(0, 3000)
    before, _ = linear_summary(model, background, background)
    now, _ = linear_summary(model, background, draw(1, 700, shift=0.8), np.random.default_rng(1).uniform(0.5, 3, 700))
    old, new = moments(before.frame(), LAYOUT), moments(now.frame(), LAYOUT)
    split = split_shift(cells(before.frame(), LAYOUT), cells(now.frame(), LAYOUT))
    assert split.shift.sum() + new.base - old.base == pytest.approx(new.output - old.output, abs=1e-9)
    np.testing.assert_allclose(split.shift, new.value - old.value, atol=1e-9)
    assert abs(new.output - old.output) > 0.1


def random_summary(seed, rows, base):
    """Attributions that no model made, adding up to an output nevertheless."""
    rng = np.random.default_rng(seed)
    values = rng.standard_t(3, size=(rows, 3)) * [1.0, 3.0, 0.2]
    output = base + values.sum(axis=1)
    weight = rng.uniform(1, 5, rows)
    return summarise(Explained(draw(seed, rows), expit(output), weight, values, output, base), LAYOUT), values, weight


def test_shifts_of_any_attributions_add_up():
    (before, *_), (now, *_) = random_summary(3, 2000, 0.5), random_summary(4, 300, -0.25)
    old, new = moments(before.frame(), LAYOUT), moments(now.frame(), LAYOUT)
    split = split_shift(cells(before.frame(), LAYOUT), cells(now.frame(), LAYOUT))
    assert split.shift.sum() + new.base - old.base == pytest.approx(new.output - old.output, abs=1e-9)


def test_moments_are_those_of_the_rows():
    summary, values, weight = random_summary(5, 400, 0.5)
    found, z = moments(summary.frame(), LAYOUT), values / LAYOUT.scale
    size = np.abs(z)

    def mean(x):
        return np.average(x, axis=0, weights=weight)

    assert found.rows == pytest.approx(weight.sum() ** 2 / (weight**2).sum())
    np.testing.assert_allclose(found.value, mean(z), atol=1e-9)
    np.testing.assert_allclose(found.square, mean(z**2), atol=1e-9)
    np.testing.assert_allclose(found.absolute, mean(size), atol=1e-9)
    np.testing.assert_allclose(found.cross, mean(size * size.sum(axis=1, keepdims=True)), atol=1e-9)
    np.testing.assert_allclose(found.share, mean(size) / mean(size).sum(), atol=1e-9)
    np.testing.assert_allclose(found.variance, mean(z**2) - mean(z) ** 2, atol=1e-8)
    assert found.share.sum() == pytest.approx(1.0)
    assert found.absolute_total2 == pytest.approx(mean(size.sum(axis=1) ** 2), abs=1e-8)
    assert found.base * LAYOUT.scale == pytest.approx(0.5)


@pytest.mark.parametrize("weighted", [False, True])
def test_the_variance_of_a_log_share_is_the_bootstraps(weighted):
    rng = np.random.default_rng(6)
    rows = 500
    common = rng.exponential(size=rows)
    size = np.column_stack([common, 0.3 * common + rng.exponential(size=rows), 0.1 * rng.standard_normal(rows)])
    weight = rng.choice([1.0, 4.0], rows) if weighted else np.ones(rows)
    frame = draw(6, rows)
    batch = Explained(frame, size.sum(axis=1), weight, size, size.sum(axis=1), 0.0)
    found = moments(summarise(batch, LAYOUT).frame(), LAYOUT)
    picks = rng.integers(0, rows, (4000, rows))
    absolute = np.array([(weight[p, None] * np.abs(size[p])).sum(axis=0) for p in picks])
    boot = np.log(absolute / absolute.sum(axis=1, keepdims=True)).var(axis=0)
    np.testing.assert_allclose(found.log_share_variance, boot, rtol=0.15)


def test_kitagawas_split_of_one_feature_by_hand():
    """Means 1 and 3 in two cells; the weight moves from half and half to one and three quarters, and a mean to 5."""
    before = Cells(np.array([[2.0, 2.0]]), np.array([[1.0, 3.0]]))
    now = Cells(np.array([[1.0, 3.0]]), np.array([[1.0, 5.0]]))
    split = split_shift(before, now)
    assert split.composition.tolist() == [-0.25 * 1 + 0.25 * 4]
    assert split.response.tolist() == [2 * (0.5 + 0.75) / 2]
    assert split.shift.tolist() == [4.0 - 2.0]
    assert split.composition_size.tolist() == [0.25 * 1 + 0.25 * 4]


def test_arriving_in_a_new_cell_is_composition():
    before = Cells(np.array([[4.0, 0.0]]), np.array([[1.0, np.nan]]))
    now = Cells(np.array([[1.0, 3.0]]), np.array([[1.0, 9.0]]))
    split = split_shift(before, now)
    assert split.response.tolist() == [0.0]
    assert split.composition.tolist() == [7.0 - 1.0]


def test_a_window_against_itself_has_no_split():
    table = cells(random_summary(7, 300, 0.0)[0].frame(), LAYOUT)
    split = split_shift(table, table)
    for part in (split.composition, split.response, split.composition_size, split.response_size):
        np.testing.assert_array_equal(part, 0.0)


def test_all_attributions_dead_are_still_numbers():
    """A model that answers a constant: shares at the floor, and a variance that does not hide them."""
    zero = Explained(draw(8, 50), np.full(50, 0.5), np.ones(50), np.zeros((50, 3)), np.zeros(50), 0.0)
    found = moments(summarise(zero, LAYOUT).frame(), LAYOUT)
    np.testing.assert_array_equal(found.share, 0.0)
    np.testing.assert_allclose(found.log_share, np.log(SHARE_FLOOR))
    np.testing.assert_array_equal(found.log_share_variance, 0.0)


def test_no_rows_and_weights_that_round_to_nothing_have_no_moments():
    assert moments(WindowSummary.zero().frame(), LAYOUT) is None
    summary, *_ = random_summary(9, 40, 0.0)
    tiny = Explained(draw(9, 40), np.full(40, 0.5), np.full(40, 1e-6), np.ones((40, 3)), np.ones(40), 0.0)
    assert moments(summarise(tiny, LAYOUT).frame(), LAYOUT) is None
    assert moments(merge([summary]).frame(), LAYOUT) is not None


def test_rates_of_a_cell():
    summary, _, weight = random_summary(10, 1000, 0.0)
    expected = [0.0, np.average(draw(10, 1000)["v"].isna(), weights=weight), 0.0]
    np.testing.assert_allclose(cell_rates(summary.frame(), LAYOUT, MISSING), expected)
    assert np.isnan(cell_rates(WindowSummary.zero().frame(), LAYOUT, MISSING)).all()
