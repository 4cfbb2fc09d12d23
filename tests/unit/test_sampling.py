"""Explaining some of the rows: whose sums they stand for, with what error, and how many it takes."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest

from whydrift.monitors import evidence as ev
from whydrift.monitors.attribution import moments, steady_log_share
from whydrift.monitors.binning import fit_attribution_bins, fit_bins
from whydrift.monitors.explained_sums import summarise, summarise_explained
from whydrift.monitors.policy import RetrainingPolicy
from whydrift.monitors.reference import BaselineWindow, Settings, refer
from whydrift.monitors.sampling import (
    CAP,
    FLOOR,
    SLICE_FLOOR,
    Usual,
    chances,
    configured,
    describe,
    draw,
    more_rows,
    needed,
    pilot,
    size,
    usual,
)
from whydrift.monitors.summary import (
    Explained,
    Group,
    Layout,
    Logged,
    Sampling,
    merge,
    summarise_logged,
)

NAMES = ("x", "y", "c")
DAY = timedelta(days=1)
START = datetime(2024, 1, 1, tzinfo=UTC)
RARE = Sampling(0.05, (("c=rare", 0.5),), "floor")


def rows(seed, number, centre=0.0):
    """Rows of three features, two of which have attributions that hang on a day's centre; one value of c is rare."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({"x": rng.normal(centre, 1, number), "y": rng.exponential(1, number)})
    frame["c"] = rng.choice(["usual", "other", "rare"], number, p=[0.7, 0.28, 0.02])
    values = np.column_stack(
        [frame["x"] * np.where(frame["c"] == "rare", 3, 1), np.log1p(frame["y"]), frame["x"] * 0.1]
    )
    output = values.sum(axis=1)
    weight = rng.choice([1.0, 2.0], number)
    return Explained(frame, 1 / (1 + np.exp(-output)), weight, values, output, 0.0)


FIRST = rows(0, 5000)
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


def of(batch, chosen, chance):
    """The chosen rows, with weights that stand for the others."""
    kept = {k: getattr(batch, k)[chosen] for k in ("prediction", "values", "output")}
    return replace(batch, features=batch.features[chosen], weight=(batch.weight / chance)[chosen], **kept)


def drawn(batch, sampling, seed):
    """The summary of a window in which some rows are explained; the seed is in the event ids."""
    ids = batch.features.assign(event_id=pd.Series([f"{seed}-{i}" for i in range(len(batch.features))], dtype="string"))
    chance = draw(replace(LAYOUT, sampling=sampling), ids)
    logged = summarise_logged(Logged(batch.features, batch.prediction, batch.weight), LAYOUT)
    return merge([logged, summarise_explained(of(batch, chance > 0, np.maximum(chance, 1e-9)), LAYOUT)])


def settings(**given):
    return Settings(
        width=DAY,
        min_rows=100,
        labels=False,
        lag=0,
        thresholds=ev.Thresholds(page=90.0, ticket=7.0),
        false_pages=1.0,
        period=90 * DAY,
        groups={},
        policy=RetrainingPolicy(causes=frozenset(), min_labelled_rows=1000, cooldown=DAY),
        **given,
    )


def test_rows_are_drawn_by_their_own_id_and_slice():
    ids = pd.Series([f"e{i}" for i in range(5000)], dtype="string")
    frame = FIRST.features.assign(event_id=ids)
    layout = replace(LAYOUT, sampling=RARE)
    whole = draw(layout, frame)
    order = np.random.default_rng(1).permutation(5000)
    assert np.array_equal(draw(layout, frame.iloc[order]), whole[order])
    assert np.array_equal(np.concatenate([draw(layout, frame[i : i + 77]) for i in range(0, 5000, 77)]), whole)
    rare = (frame["c"] == "rare").to_numpy()
    assert set(np.unique(whole[rare])) == {0.0, 0.5}
    assert set(np.unique(whole[~rare])) == {0.0, 0.05}
    # A higher chance explains more rows and drops none.
    more = draw(replace(layout, sampling=replace(RARE, rate=0.1)), frame)
    assert ((more > 0) >= (whole > 0)).all()
    assert draw(LAYOUT, frame).tolist() == [1.0] * 5000


def test_a_chance_of_one_gives_the_sums_of_all_rows():
    everything = drawn(FIRST, Sampling(1.0, (), "configured"), 0)
    assert everything.to_bytes() == summarise(FIRST, LAYOUT).to_bytes()


def test_what_slices_never_saw_has_the_chance_of_all():
    frame = pd.DataFrame({"x": [0.0] * 3, "y": [0.0] * 3, "c": ["rare", "new", None]})
    assert chances(RARE, LAYOUT, frame).tolist() == [0.5, 0.05, 0.05]


@pytest.fixture(scope="module")
def tries():
    """One window, drawn 200 times."""
    batch = rows(1, 20_000)
    return summarise(batch, LAYOUT).frame(), [drawn(batch, RARE, seed).frame() for seed in range(200)]


def sums(frame, block):
    return frame[frame["block"] == block].set_index(["name", "cell", "stat"])["value"]


def test_sums_are_unbiased(tries):
    """Every sum over explained rows is on average that of all rows, in each cell."""
    whole, frames = tries
    for block in ("attribution", "phi", "group", "total"):
        expected = sums(whole, block)
        keep = expected.index.get_level_values("stat") != "weight2"
        expected = expected[keep]
        found = np.array([sums(frame, block).reindex(expected.index, fill_value=0.0) for frame in frames])
        error = found.std(axis=0, ddof=1) / np.sqrt(len(frames))
        off = np.abs(found.mean(axis=0) - expected.to_numpy())
        assert (off <= 4.5 * error + 1e-6 * np.abs(expected.to_numpy())).all(), block
    for block in ("rows", "input", "slice", "missing", "score"):
        assert (sums(frames[0][frames[0]["slice"] == ""], block) == sums(whole[whole["slice"] == ""], block)).all()


def test_stated_errors_are_those_that_are_seen(tries):
    """The sampling variances of streams against the variance over seeds; 1 - rate of it, as the window is the same."""
    whole, frames = tries
    before = moments(whole, LAYOUT)
    now = [moments(frame, LAYOUT) for frame in frames]
    finite = 1 - RARE.rate
    shares = [steady_log_share(m, before) for m in now]
    seen = np.var([value for value, _ in shares], axis=0, ddof=1)
    stated = np.mean([variance for _, variance in shares], axis=0) * finite
    np.testing.assert_allclose(seen, stated, rtol=0.3)
    levels = np.var([m.value for m in now], axis=0, ddof=1)
    np.testing.assert_allclose(levels, np.mean([m.variance / m.rows for m in now], axis=0) * finite, rtol=0.3)
    output = np.mean([(m.output2 - m.output**2) / m.rows for m in now]) * finite
    assert np.var([m.output for m in now], ddof=1) == pytest.approx(output, rel=0.3)


def known(**given):
    return Usual(**{"rows": np.full(30, 1e6), "weight": 1.0, "slices": {}, **given})


def test_the_pilot_is_the_floor_and_slices_have_theirs():
    found = pilot(known(slices={"c=a": 9e5, "c=b": 5e3, "c=d": 50.0}), 100)
    assert found == Sampling(FLOOR / 1e6, (("c=b", SLICE_FLOOR / 5e3), ("c=d", 1.0)), "floor")
    assert pilot(known(rows=np.full(30, 900.0)), 100) is None  # the demo's windows: all rows, as ever
    assert pilot(known(rows=np.full(30, 3999.0)), 100) is None
    assert pilot(known(rows=np.zeros(30)), 100) is None
    assert configured(10_000, known()) == Sampling(0.01, (), "configured")
    assert configured(10**6, known()) is None


def test_quiet_windows_keep_enough_to_be_judged():
    nights = np.where(np.arange(30) % 3 == 0, 20_000.0, 1e6)
    found = pilot(known(rows=nights), 100)
    assert found == Sampling(0.01, (), "quiet")
    assert found.rate * 20_000 == 200
    outage = np.append(np.full(29, 1e6), 500.0)
    assert pilot(known(rows=outage), 100).rate == FLOOR / 1e6


def test_weights_stay_within_what_sums_hold():
    found = pilot(known(rows=np.full(30, 1e12), weight=4.0), 100)
    assert (4.0 / found.rate) ** 2 <= 2**30


def test_what_is_usual_is_read_from_some_rows():
    some = summarise_logged(Logged(FIRST.features, FIRST.prediction, FIRST.weight), LAYOUT)
    found = usual([10_000, 0, 30_000], some)
    assert found.typical == 20_000
    rare = (FIRST.features["c"] == "rare").mean()
    assert found.slices["c=rare"] == pytest.approx(rare * 20_000)
    assert found.weight == pytest.approx(np.sqrt((FIRST.weight**2).mean()))


def reference(deviation, number, sampling, seed=0, days=40):
    """A baseline whose days differ by a shift of x, with so many rows a day, of which some are explained."""
    rng = np.random.default_rng(seed)
    made = [
        BaselineWindow(
            START + i * DAY, drawn(rows((seed, i), number, deviation * rng.normal()), sampling, (seed, i)), None
        )
        for i in range(days)
    ]
    return refer(made, LAYOUT, settings(), {}), made


def test_the_sample_is_what_the_streams_ask_for():
    """Of a mean whose days differ by d deviations, 10 / d**2 effective rows make sampling a tenth of that."""
    tried = Sampling(0.1, (), "floor")
    found, windows = reference(0.2, 5000, tried)
    asked = dict(needed(found, windows))
    rng = np.random.default_rng(0)
    differ = 0.2**2 * np.var([rng.normal() for _ in range(40)], ddof=1)
    # A shift of x is one of 1.04 in its attribution, whose variance is 1.16; weights 1 and 2 tell less by .9.
    expected = 10 / (differ * 1.04**2 / 1.16) / (0.9 * 500)
    assert asked["level of x"] == pytest.approx(expected, rel=0.25)
    assert asked["level of x"] < asked["level of y"]  # whose days do not differ
    assert {"share of x", "group_share of both", "score_mean", "shape of y", "response of x"} <= set(asked)
    assert not any("score_shape" in name for name in asked)  # which every row tells of

    final = size(tried, found, windows, known(rows=np.full(40, 2e5)))
    assert (final.rate, final.why) == (CAP / 2e5, "cap")
    assert asked[final.stream] == max(asked.values())


def test_a_pilot_that_is_enough_is_kept(monkeypatch):
    tried = Sampling(0.1, (), "floor")
    found, windows = reference(0.1, 5000, tried, days=10)
    monkeypatch.setattr("whydrift.monitors.sampling.needed", lambda *_: [("a", 0.7), ("b", 0.9)])
    assert size(tried, found, windows, known()) == tried
    monkeypatch.setattr("whydrift.monitors.sampling.needed", lambda *_: [("a", 0.7), ("b", 3.0)])
    assert size(tried, found, windows, known(rows=np.full(9, 1e5))) == Sampling(0.3, (), "stream", "b")


def test_what_more_rows_would_buy():
    """The variances are the stream's own: with all rows its sampling part falls to a tenth."""
    found, _ = reference(0.1, 5000, Sampling(0.1, (), "floor"))
    last = found.observations[-1]
    bought = more_rows(found, last, 0.1)
    number = found.detector.streams.index(bought.stream)
    between = found.detector.scale.between[number] * found.detector.scale.unit[number] ** 2
    noise = last.variances[number]
    assert bought.part == pytest.approx(noise / (noise + between))
    assert bought.all == bought.tenfold == pytest.approx(np.sqrt((between + noise / 10) / (between + noise)))
    assert describe(bought.stream).startswith(bought.stream.kind)
    assert more_rows(found, replace(last, variances=np.full_like(last.variances, np.nan)), 0.1) is None


def test_the_budget_holds_where_rows_are_drawn():
    """Days that differ, stratified samples of them: q stays standard normal, and hardly a page opens."""
    pages, seen, found = 0, 0, []
    for seed in range(3):
        fitted, _ = reference(0.08, 4000, RARE, seed=seed, days=70)
        usual_days, later = fitted.observations[:35], fitted.observations[35:]
        detector = ev.fit(fitted.detector.streams, usual_days, DAY, settings().thresholds)
        state = detector.start
        for observation in later:
            state, evidence = ev.step(detector, state, observation)
            pages, seen = pages + evidence.page, seen + 1
            found.append(evidence.q)
    q = np.concatenate([row[row != 0] for row in found])
    assert 0.85 < q.std() < 1.15
    assert abs(q.mean()) < 0.15
    assert seen == 105
    assert pages <= 4  # 1.2 by the lemma
