"""Whatever a window holds, the evidence is finite, and it depends on the past only."""

from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from whydrift.monitors.evidence import Evidence, Observation, Stream, Thresholds, fit, smallest_detectable, step
from whydrift.monitors.frozen import drifted, remember
from whydrift.monitors.stream import muted_in
from whydrift.monitors.verdict import Mute

START = datetime(2026, 3, 2, tzinfo=UTC)
ABSURD = st.sampled_from([0.0, -0.0, 1e-300, 1.0, -1e6, 1e150, -1e300, 1e300, np.inf, -np.inf, np.nan])


@st.composite
def windows(draw):
    """Up to sixty windows of up to five streams, with absurd values and variances strewn in, and holes in time."""
    count, length = draw(st.integers(0, 5)), draw(st.integers(1, 60))
    width = draw(st.sampled_from([timedelta(hours=1), timedelta(days=1), timedelta(days=7)]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    values = rng.standard_normal((length, count)) * draw(st.sampled_from([0.0, 1e-12, 1.0, 1e9]))
    variances = np.full((length, count), draw(st.sampled_from([0.0, 1e-30, 0.5, 1e300])))
    for table in (values, variances):
        spots = st.tuples(st.integers(0, length - 1), st.integers(0, max(count - 1, 0)), ABSURD)
        for row, column, value in draw(st.lists(spots, max_size=12)) if count else []:
            table[row, column] = value
    if count and draw(st.booleans()):
        values[:, 0] = draw(ABSURD)
    gaps = np.cumsum(rng.choice([1, 1, 1, 1, 3], size=length))
    return [Observation(START + int(gaps[i]) * width, values[i], variances[i]) for i in range(length)], width


@st.composite
def streams(draw, count):
    """Of both tiers and sides, asked for or not, with tolerances from none to absurd."""
    return [
        Stream(
            draw(st.sampled_from(["one", "two"])),
            one_sided=draw(st.booleans()),
            tolerance=draw(st.sampled_from([0.0, 0.1, 1e-300, 1e300])),
            weight=draw(st.sampled_from([1.0, 1e-6, 50.0])),
            tier=draw(st.sampled_from(["page", "page", "ticket"])),
            automatic=draw(st.booleans()),
        )
        for _ in range(count)
    ]


def sound(result: Evidence, count: int) -> None:
    assert np.isfinite(result.model)
    for name in ("q", "weighted", "concern", "expected", "effect"):
        array = getattr(result, name)
        assert array.shape == (count,)
        assert np.all(np.isfinite(array)), name
    assert np.all(result.weighted >= 0)
    assert np.all(result.half_width > 0)
    assert len(result.onset) == count
    assert result.confirmed | {*result.named, *result.suspected} <= set(range(count))
    assert not (result.firing and result.armed)
    assert bool(result.suspected) == result.ticket


@settings(max_examples=60, deadline=None)
@given(windows(), st.integers(0, 40), st.data())
def test_absurd_windows_never_make_nan(case, baseline, data):
    observations, width = case
    count = observations[0].values.size
    watched, baseline = data.draw(streams(count)), min(baseline, len(observations))
    days = data.draw(st.sets(st.integers(0, 80), max_size=5))
    since, until = sorted(data.draw(st.tuples(st.integers(0, 80), st.integers(0, 80))))
    mute = Mute(since=START + since * width, until=START + until * width, reason="", kind="two")
    detector = fit(
        watched,
        observations[:baseline],
        width,
        Thresholds(page=90, ticket=7),
        holidays={(START + timedelta(days=day)).date() for day in days},
        mutes=[mute],
    )
    assert np.all(np.isfinite(detector.psi))
    paging = np.array([stream.tier == "page" for stream in watched], dtype=bool)
    state, pages, recent = detector.start, 0, ()
    for observation in observations[baseline:]:
        state, result = step(detector, state, observation)
        sound(result, count)
        pages += result.page
        assert result.pages == pages
        assert result.page <= (result.model >= 90)
        assert result.ticket <= (result.concern.sum() >= 7)
        assert np.all(result.weighted[~paging] == 0)
        silent = muted_in(observation.start, [mute], watched)
        assert np.all(result.weighted[silent] == 0)
        assert np.all(result.concern[silent] == 0)
        if baseline < 28:
            assert not result.page
            assert not result.ticket
        recent = remember(recent, observation)
        for drift in drifted(detector, recent, silent):
            assert not silent[drift.stream]
            assert np.all(np.isfinite([drift.mean, drift.expected, *drift.interval, drift.tolerance, drift.effect]))
    assert all(shift > 0 for shift in smallest_detectable(detector, state, [2, 30]))


@settings(max_examples=20, deadline=None)
@given(windows(), st.integers(1, 20))
def test_evidence_does_not_know_the_future(case, cut):
    observations, width = case
    count = observations[0].values.size
    detector = fit([Stream("kind")] * count, observations[:28], width, Thresholds(page=90, ticket=7))
    changed = [replace(o, values=o.values[::-1] * 3 + 1) if i >= cut else o for i, o in enumerate(observations[28:])]
    one = two = detector.start
    for left, right in list(zip(observations[28:], changed, strict=True))[:cut]:
        one, first = step(detector, one, left)
        two, second = step(detector, two, right)
        for field in fields(first):
            np.testing.assert_array_equal(getattr(first, field.name), getattr(second, field.name))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1e-6, 0.5, 1024.0]), st.sampled_from([-1e3, 0.0, 7.0]))
def test_units_do_not_matter(seed, unit, offset):
    rng = np.random.default_rng(seed)
    values, variances = rng.standard_normal((60, 4)), rng.uniform(0.01, 1, (60, 4))
    values[50:, 1] += 4
    tables = ((values, variances, 0.2), (values * unit + offset * unit, variances * unit**2, 0.2 * unit))
    found = []
    for table, spread, tolerance in tables:
        observations = [Observation(START + i * timedelta(days=1), table[i], spread[i]) for i in range(60)]
        detector = fit(
            [Stream("kind", tolerance=tolerance)] * 4, observations[:40], timedelta(days=1), Thresholds(90, 7)
        )
        state, models = detector.start, []
        for observation in observations[40:]:
            state, result = step(detector, state, observation)
            models.append(result.model)
        found.append(models)
    np.testing.assert_allclose(found[0], found[1], rtol=1e-4)
