"""The report's figures, read back from their SVG."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta
from xml.etree import ElementTree as ET

import pytest

from whydrift.monitors.verdict import ReliabilityBin, ScoreShift, Status, Verdict
from whydrift.pipelines.outputs import charts


def _earlier(verdict: Verdict, count: int) -> list[Verdict]:
    """`count` quiet windows before a verdict, oldest first."""
    days = [timedelta(days=n) for n in range(count, 0, -1)]
    return [
        replace(
            verdict,
            key=replace(verdict.key, start=verdict.key.start - day, end=verdict.key.end - day),
            status=Status.OK,
            since=None,
            budget=replace(verdict.budget, evidence=1.5),
        )
        for day in days
    ]


def _marks(svg: str, status: Status) -> list[float]:
    """Heights of a status' marks above the axis, in pixels."""
    figure = ET.fromstring(svg)
    colour = f"fill: var(--{status.value})"
    return [float(e.get("y")) for e in figure.iter("use") if colour in e.get("style", "")]


def test_the_time_line_marks_each_window_at_its_evidence(make_verdict):
    verdict = make_verdict()
    history = _earlier(verdict, 6)
    history[1] = replace(history[1], status=Status.TICKET, budget=replace(verdict.budget, evidence=90.0))
    history[3] = replace(history[3], status=Status.INSUFFICIENT_DATA)
    history[4] = replace(history[4], status=Status.NOT_EVALUATED)
    svg = charts.timeline([*history, verdict])
    assert {status: len(_marks(svg, status)) for status in Status} == {
        Status.OK: 3,
        Status.TICKET: 1,
        Status.PAGE: 1,
        Status.INSUFFICIENT_DATA: 1,
        Status.NOT_EVALUATED: 1,
    }
    floor, low = _marks(svg, Status.INSUFFICIENT_DATA)[0], _marks(svg, Status.OK)[0]
    at_threshold, page = _marks(svg, Status.TICKET)[0], _marks(svg, Status.PAGE)[0]
    assert floor == _marks(svg, Status.NOT_EVALUATED)[0] > low > at_threshold > page
    line = re.search(r'd="M [\d.]+ ([\d.]+)\s+L [\d.]+ \1\s*" [^>]*style="[^"]*var\(--page\)', svg)
    assert float(line[1]) == pytest.approx(at_threshold), "evidence 90 stands on the threshold of 90"


@pytest.mark.parametrize("days", [0, 30])
def test_the_onset_is_on_the_time_line_even_where_it_began_before(make_verdict, days):
    verdict = make_verdict()
    verdict = replace(verdict, since=verdict.since - timedelta(days))
    svg = charts.timeline([*_earlier(verdict, 6), verdict])
    texts = [e for e in ET.fromstring(svg).iter("text") if "since" in (e.text or "")]
    assert [t.text for t in texts] == [f"since {verdict.since:%Y-%m-%d %H:%M}"]
    assert 46 <= float(texts[0].get("x")) <= 1040


def test_the_line_is_broken_where_a_window_is_missing(make_verdict):
    verdict = make_verdict()
    history = _earlier(verdict, 6)

    def pieces(windows: list[Verdict]) -> int:
        figure = ET.fromstring(charts.timeline([*windows, verdict]))
        lines = [e.get("d") for e in figure.iter("path") if "stroke: var(--then)" in e.get("style", "")]
        return sum(line.count("M ") for line in lines)

    assert pieces(history) == 1
    assert pieces(history[:2] + history[3:]) == 2


def test_figures_of_nothing_but_zeros_are_drawn_without_complaint(make_verdict):
    flat = tuple(
        replace(a, share=0.0, baseline_share=0.0, shift=0.0, composition=0.0, response=0.0)
        for a in make_verdict().attribution
    )
    assert "0%" in charts.shares(flat, frozenset(), {})
    assert ">base<" in charts.score_shift(flat, None, ScoreShift(mean=0, baseline_mean=0, shift=0, base_shift=0))
    assert "<svg" in charts.reliability((ReliabilityBin(predicted=0, observed=0, lower=0, upper=0, rows=0),))


def test_points_outside_the_consistency_band_have_another_shape_and_colour(make_verdict):
    svg = charts.reliability(make_verdict().calibration.diagram)
    figure = ET.fromstring(svg)
    marks = {
        colour: [e for e in figure.iter("use") if f"fill: var(--{colour})" in e.get("style", "")]
        for colour in ("now", "moved")
    }
    assert [len(marks["now"]), len(marks["moved"])] == [1, 1]
    assert marks["now"][0].get("href") != marks["moved"][0].get("href")
