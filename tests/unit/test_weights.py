"""A row of weight k counts as k rows, in every mean; and a weighted sample tells of the log that it was drawn from."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from whydrift.monitors.attribution import cell_rates, cells, moments
from whydrift.monitors.binning import MISSING, fit_attribution_bins, fit_bins
from whydrift.monitors.distances import counts
from whydrift.monitors.explained_sums import summarise
from whydrift.monitors.outcome_streams import losses, score_mesh
from whydrift.monitors.summary import Explained, Group, Layout, Outcomes, merge, summarise_outcomes

NAMES = ("x", "y", "c")


def rows(seed, number):
    """Explained rows and their outcomes, of weight 1."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(rng.normal(size=(number, 2)), columns=["x", "y"])
    frame["c"] = rng.choice(["a", "b", "d"], number)
    frame.loc[rng.random(number) < 0.2, "y"] = np.nan
    values = np.column_stack([frame["x"], 0.5 * frame["y"].fillna(0), rng.normal(size=number)])
    output, one = values.sum(axis=1), np.ones(number)
    prediction, label = 1 / (1 + np.exp(-output)), (rng.random(number) < 0.4).astype(float)
    return Explained(frame, prediction, one, values, output, 0.0), Outcomes(frame, prediction, one, label)


FIRST = rows(0, 2000)[0]
LAYOUT = Layout(
    task="binary",
    link="logit",
    scale=1.0,
    loss_scale=1.0,
    features=tuple(fit_bins(name, FIRST.features[name]) for name in NAMES),
    attributions=tuple(map(fit_attribution_bins, NAMES, FIRST.values.T)),
    slices=("c",),
    groups=(Group("both", ("x", "y")),),
)


def of(batch, index, weight):
    """The chosen rows with these weights."""
    chosen = {k: getattr(batch, k)[index] for k in ("prediction", "values", "output", "label") if hasattr(batch, k)}
    return replace(batch, features=batch.features.iloc[index], weight=weight, **chosen)


def numbers(explained, outcomes):
    """Every weighted mean that is made of a window."""
    frame, late = summarise(explained, LAYOUT).frame(), summarise_outcomes(outcomes, LAYOUT).frame()
    now, table, mesh, mine = moments(frame, LAYOUT), cells(frame, LAYOUT), score_mesh(late), counts(frame, LAYOUT)
    weight = frame.loc[(frame["block"] == "rows") & (frame["stat"] == "weight"), "value"].item()

    def by_slice(block):
        chosen = frame[(frame["block"] == block) & (frame["stat"] == "weight")]
        return chosen.groupby(["slice", "name"])["value"].sum().to_numpy() / weight

    return {
        "moments": np.array([now.value, now.square, now.absolute, now.cross, now.share]),
        "group": np.array([now.groups.value, now.groups.square, now.groups.absolute, now.groups.cross]),
        "total": np.array([now.absolute_total, now.absolute_total2, now.output, now.output2, now.base]),
        "inputs": table.weight / weight,
        "responses": np.nan_to_num(table.mean),
        "missing": cell_rates(frame, LAYOUT, MISSING),
        "phi": mine.phi / weight,
        "scores": mine.score / weight,
        "slices": by_slice("slice"),
        "missing in slices": by_slice("missing"),
        "losses": np.array([found.mean for found in losses(late).values()]),
        "calibration": np.array([mesh.labelled, mesh.positive]) / weight,
        "brier": np.array([mesh.squared_error / weight]),
    }


def test_a_row_of_weight_k_is_k_rows():
    (explained, outcomes), copies = rows(1, 400), np.random.default_rng(2).integers(1, 5, 400)
    every, once = np.repeat(np.arange(400), copies), np.arange(400)
    ones, weight = np.ones(every.size), copies.astype(float)
    repeated = numbers(of(explained, every, ones), of(outcomes, every, ones))
    weighted = numbers(of(explained, once, weight), of(outcomes, once, weight))
    assert repeated.keys() == weighted.keys()
    for name, value in repeated.items():
        np.testing.assert_allclose(weighted[name], value, atol=1e-8, err_msg=name)


def test_repeated_rows_do_not_pass_for_more_knowledge():
    """Means are the same, and their precision is that of the rows there are."""
    explained, outcomes = rows(3, 300)
    weight = np.full(300, 4.0)
    frame = summarise(replace(explained, weight=weight), LAYOUT).frame()
    assert moments(frame, LAYOUT).rows == pytest.approx(300)
    late = summarise_outcomes(replace(outcomes, weight=weight), LAYOUT).frame()
    found, plain = losses(late)[""], losses(summarise_outcomes(outcomes, LAYOUT).frame())[""]
    assert (found.rows, found.effective) == (300, pytest.approx(300))
    assert found.variance == pytest.approx(plain.variance)
    assert score_mesh(late).rows == pytest.approx(300)


def test_a_sample_with_inverse_probabilities_as_weights_tells_of_the_whole_log():
    """Large outputs are sampled ten times as often; the weights take that back without bias."""
    explained, outcomes = rows(4, 3000)
    chance = np.where(explained.output > 1, 0.5, 0.05)
    rng, found = np.random.default_rng(5), []
    for _ in range(150):
        drawn = np.flatnonzero(rng.random(3000) < chance)
        weight = 1 / chance[drawn]
        found.append(sums(of(explained, drawn, weight), of(outcomes, drawn, weight)))
    whole = sums(explained, outcomes)
    estimates = pd.DataFrame(found).fillna(0.0).reindex(columns=whole.index, fill_value=0.0)
    error = np.maximum(estimates.std(ddof=1) / np.sqrt(len(found)), 1e-9)
    z = (estimates.mean() - whole) / error
    plenty = (estimates > 0).mean() > 0.9  # a sum of one or two rows is far from normal
    assert plenty.sum() > 300
    assert z[plenty].abs().max() < 4.5
    assert z[plenty].std() == pytest.approx(1.0, abs=0.35)


def sums(explained, outcomes):
    """All weighted sums of a window by their key."""
    frame = merge([summarise(explained, LAYOUT), summarise_outcomes(outcomes, LAYOUT)]).frame()
    frame = frame[~frame["stat"].isin(["rows", "explained", "positives", "weight2", "prediction_differs"])]
    return frame.set_index(["block", "slice", "name", "cell", "stat"])["value"]
