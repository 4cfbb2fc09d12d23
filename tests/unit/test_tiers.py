"""What may page, what may only ticket, what was found automatically, and what is muted."""

from dataclasses import replace

import numpy as np
import pytest

from simulated import DAY, START, THRESHOLDS, fold, observations, simulate, streams
from whydrift.monitors import mixture
from whydrift.monitors.evidence import Stream, Thresholds, fit, smallest_detectable, step
from whydrift.monitors.verdict import Mute

D = 56


def moved(seed, count, windows, index, by, *, at=D):
    values = simulate(seed, count, windows)
    values[at:, index] += by
    return observations(values)


def test_a_ticket_stream_tickets_and_never_pages():
    windows = moved(1, 10, 100, 3, 5)
    asked = [replace(stream, tier="ticket") if i == 3 else stream for i, stream in enumerate(streams(10))]
    found = fold(fit(asked, windows[:D], DAY, THRESHOLDS), windows[D:])
    assert not any(e.page or e.firing for e in found)
    first = next(e for e in found if e.ticket)
    assert first.windows <= 4
    assert first.suspected[0] == 3
    assert abs((first.onset[3] - START).days - D) <= 1
    assert all(3 not in e.named and 3 not in e.confirmed and e.weighted[3] == 0 for e in found)
    assert all(not e.suspected for e in found if not e.ticket)
    paging = fold(fit(streams(10), windows[:D], DAY, THRESHOLDS), windows[D:])
    assert next(e for e in paging if e.page).named[0] == 3


def test_the_page_evidence_is_the_same_whatever_a_ticket_stream_does():
    """A kind of its own, so that no variance is borrowed. It was quiet in the baseline, whence the common psi."""
    quiet, loud = moved(2, 12, 90, 11, 0), moved(2, 12, 90, 11, 3)
    asked = [Stream("share") if i < 11 else Stream("loss", tier="ticket") for i in range(12)]
    one, two = (fold(fit(asked, windows[:D], DAY, THRESHOLDS), windows[D:]) for windows in (quiet, loud))
    np.testing.assert_allclose([e.model for e in one[:3]], [e.model for e in two[:3]], rtol=0.02)
    assert any(e.ticket and e.suspected[0] == 11 for e in two[:3])
    assert not any(e.ticket for e in one[:3])


def test_only_ticket_streams_mean_that_nothing_pages():
    windows = moved(3, 4, 90, 0, 8)
    detector = fit(streams(4, tier="ticket"), windows[:D], DAY, THRESHOLDS)
    found = fold(detector, windows[D:])
    assert {e.model for e in found} == {0.0}
    assert any(e.ticket for e in found)
    assert smallest_detectable(detector, detector.start, [7]) == (np.inf,)


def test_weights_are_relative_within_a_tier():
    asked = [Stream("share", weight=3), Stream("share"), Stream("loss", tier="ticket", weight=4)]
    np.testing.assert_allclose(mixture.page_weights(asked), [0.75, 0.25, 0])
    np.testing.assert_allclose(mixture.ticket_weights(asked), [0.375, 0.125, 0.5])


@pytest.mark.parametrize(("own", "found", "share"), [(18, 2, 0.1), (99, 1, 0.01), (10, 30, 0.1), (0, 5, 0.1)])
def test_automatic_streams_share_a_tenth_at_most(own, found, share):
    asked = [*streams(own), *(Stream("loss", slice=str(i), automatic=True) for i in range(found))]
    for weights in (mixture.page_weights(asked), mixture.ticket_weights(asked)):
        assert weights[own:].sum() == pytest.approx(share)
        assert weights[:own].sum() == pytest.approx(1 - share if own else 0)
        assert np.ptp(weights[:own]) == pytest.approx(0) if own else True


def test_automatic_streams_hardly_slow_the_others():
    windows = moved(4, 40, 100, 0, 2)
    asked = [replace(s, automatic=i >= 20, kind="loss" if i >= 20 else "share") for i, s in enumerate(streams(40))]
    alone = [replace(w, values=w.values[:20], variances=w.variances[:20]) for w in windows]
    many, few = (
        next(e.windows for e in fold(fit(chosen, seen[:D], DAY, THRESHOLDS), seen[D:]) if e.page)
        for chosen, seen in ((asked, windows), (asked[:20], alone))
    )
    assert abs(many - few) <= 2
    detectors = [fit(asked[:n], [replace(w, values=w.values[:n], variances=w.variances[:n]) for w in windows[:D]],
                     DAY, THRESHOLDS) for n in (20, 40)]  # fmt: skip
    own, all_of_them = (smallest_detectable(d, d.start, [7])[0] for d in detectors)
    assert all_of_them == pytest.approx(own, rel=0.1)


def mute(first: int, end: int, **names) -> Mute:
    return Mute(since=START + first * DAY, until=START + end * DAY, reason="known", **names)


def test_a_muted_stream_has_no_evidence_until_the_mute_ends():
    windows = moved(5, 10, 130, 4, 6, at=60)
    calm = fold(fit(streams(10), windows[:D], DAY, THRESHOLDS), windows[D:])
    assert next(e for e in calm if e.page).windows < 10
    found = fold(fit(streams(10), windows[:D], DAY, THRESHOLDS, mutes=[mute(60, 90, feature="f4")]), windows[D:])
    muted, after = found[4:34], found[34:]
    assert not any(e.page for e in found[:34])
    assert all(e.weighted[4] == e.concern[4] == 0 for e in muted)
    assert all(abs(e.q[4]) > 2 for e in muted)  # it is judged by what was normal before, and teaches nothing
    page = next(e for e in after if e.page)
    assert page.windows - 34 <= 4
    assert page.named == (4,)
    assert abs((page.onset[4] - START).days - 90) <= 1


def test_a_mute_leaves_the_other_streams_their_weight():
    windows = moved(6, 10, 90, 0, 0)
    loud, quiet = (
        fold(fit(streams(10), windows[:D], DAY, THRESHOLDS, mutes=mutes), windows[D:])
        for mutes in ([], [mute(0, 500, feature="f4")])
    )
    first = quiet[0].weighted
    np.testing.assert_allclose(np.delete(first, 4), np.delete(loud[0].weighted, 4))
    assert first[4] == 0


def test_a_mute_closes_the_page_that_it_is_for():
    windows = moved(7, 10, 110, 2, 6)
    found = fold(fit(streams(10), windows[:D], DAY, THRESHOLDS, mutes=[mute(75, 200, feature="f2")]), windows[D:])
    assert all(e.firing for e in found[6:19])
    assert not any(e.firing for e in found[19:])
    assert found[-1].pages == 1


def test_a_mute_names_all_that_it_says():
    asked = [
        Stream("share", feature="a"),
        Stream("level", feature="a"),
        Stream("loss", slice="c=x"),
        Stream("g", group="w"),
    ]
    windows = observations(simulate(8, 4, D + 1))
    for names, silent in (
        ({"feature": "a"}, {0, 1}),
        ({"kind": "level"}, {1}),
        ({"kind": "share", "feature": "b"}, set()),
        ({"slice": "c=x"}, {2}),
        ({"group": "w"}, {3}),
    ):
        detector = fit(asked, windows[:D], DAY, THRESHOLDS, mutes=[mute(0, 99, **names)])
        _, result = step(detector, detector.start, windows[D])
        assert set(np.flatnonzero(result.weighted == 0).tolist()) == silent


def test_a_mute_is_a_matter_of_the_window_and_not_of_the_day_it_is_assessed():
    windows = moved(9, 6, 80, 1, 0)
    detector = fit(streams(6), windows[:D], DAY, THRESHOLDS, mutes=[mute(60, 70, feature="f1")])
    silent = [e.weighted[1] == 0 for e in fold(detector, windows[D:])]
    assert silent == [60 <= day < 70 for day in range(D, 80)]


def test_a_short_baseline_says_so_in_both_tiers():
    windows = moved(10, 6, 60, 0, 9, at=30)
    asked = [replace(s, tier="ticket") if i else s for i, s in enumerate(streams(6))]
    detector = fit(asked, windows[:27], DAY, Thresholds(10, 2))
    assert detector.learning
    assert not any(e.page or e.ticket or e.armed for e in fold(detector, windows[27:]))
