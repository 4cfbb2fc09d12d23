"""Means from labels that were drawn at random."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from whydrift.monitors.audit import Audited, draw, estimate_audit, summarise_audit
from whydrift.monitors.summary import WindowSummary, merge


@pytest.fixture(scope="module")
def layout(world):
    return world.layout


def sample(seed, rows=3000, *, chance=0.1, shift=1.0):
    """A changed concept: labels are far more often positive than the scores say. Rows are drawn by chance alone."""
    rng = np.random.default_rng([3, seed])
    output = rng.normal(-1.0, 1.5, rows)
    p, label = expit(output), (rng.random(rows) < expit(output + shift)).astype(float)
    chance = chance(p) if callable(chance) else np.full(rows, chance)
    drawn = rng.random(rows) < chance
    nan = np.full(rows, np.nan)
    return Audited(p, np.ones(rows), np.where(drawn, label, nan), np.where(drawn, chance, nan)), label


def by_name(batch, layout):
    return {a.of: a for a in estimate_audit(summarise_audit(batch, layout).frame(), layout)}


def test_equal_chances_give_the_estimator_of_the_paper(layout):
    batch, _ = sample(1)
    drawn = ~np.isnan(batch.label)
    p, y = batch.prediction, batch.label[drawn]
    for of, f, truth in (("label", p, y), ("loss", p * (1 - p), (y - p[drawn]) ** 2)):
        rest = truth - f[drawn]
        value = f.mean() + rest.mean()
        half = 1.959964 * np.sqrt(f.var() / f.size + rest.var() / rest.size)
        found = by_name(batch, layout)[of]
        assert found.value == pytest.approx(value, abs=1e-6)
        assert found.interval == pytest.approx((value - half, value + half), abs=1e-6)
        assert found.audited == drawn.sum()


@pytest.mark.parametrize("chance", [0.1, lambda p: 0.03 + 0.3 * p], ids=["equal", "by score"])
def test_intervals_cover_a_changed_concept_and_beat_the_drawn_rows_alone(layout, chance):
    process = sample(0, 1_000_000)
    truth = {"label": process[1].mean(), "loss": ((process[1] - process[0].prediction) ** 2).mean()}
    hits, halves, blind = [], [], []
    for seed in range(1, 241):
        batch, _ = sample(seed, chance=chance)
        found = by_name(batch, layout)
        hits += [low <= truth[of] <= high for of in truth for low, high in [found[of].interval]]
        low, high = found["label"].interval
        halves.append((high - low) / 2)
        blind.append(abs(batch.prediction.mean() - truth["label"]))
    assert 0.925 <= np.mean(hits) <= 0.975
    assert np.mean(blind) > 3 * np.mean(halves)
    if not callable(chance):
        alone = 1.959964 * np.sqrt(truth["label"] * (1 - truth["label"]) / 300)
        assert np.mean(halves) < 0.95 * alone


def test_sums_are_exact_in_any_split(layout):
    batch, _ = sample(2)
    parts = [
        summarise_audit(
            Audited(batch.prediction[i::4], batch.weight[i::4], batch.label[i::4], batch.chance[i::4]), layout
        )
        for i in (3, 0, 2, 1)
    ]
    assert merge(parts).to_bytes() == summarise_audit(batch, layout).to_bytes()


def test_too_few_drawn_rows_say_nothing(layout):
    assert by_name(sample(1, rows=100)[0], layout) == {}
    assert estimate_audit(WindowSummary.zero().frame(), layout) == ()


def test_of_a_regression_the_loss_has_no_guess(make_world):
    layout = make_world(task="regression").layout
    rng = np.random.default_rng(0)
    p = rng.normal(5, 2, 4000)
    y = p + 1.0 + rng.standard_normal(4000)
    drawn = rng.random(4000) < 0.2
    nan = np.full(4000, np.nan)
    found = by_name(Audited(p, np.ones(4000), np.where(drawn, y, nan), np.where(drawn, 0.2, nan)), layout)
    assert found["label"].value == pytest.approx(p.mean() + (y - p)[drawn].mean(), abs=1e-6)
    assert found["loss"].value == pytest.approx(((y - p)[drawn] ** 2).mean(), abs=1e-6)


def test_events_are_drawn_by_their_id_alone():
    ids = [f"event-{i}" for i in range(20_000)]
    drawn = draw(ids, 0.05)
    assert drawn.mean() == pytest.approx(0.05, abs=0.005)
    assert draw(ids[::-1], 0.05).tolist() == drawn[::-1].tolist()
    assert drawn[draw(ids, 0.02)].all()  # a smaller sample is part of a larger one
    other = draw(ids, 0.05, salt="second")
    assert (drawn & other).sum() == pytest.approx(50, abs=25)
    assert not draw(ids, 0.0).any()
    even = pd.Series(drawn).groupby(np.arange(20_000) % 2).mean()
    assert even.max() - even.min() < 0.01
