"""What the report says of reason contracts, and of a regression's errors."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from html import unescape

import pytest

from whydrift.monitors.verdict_validation import ExpectationResult, IntervalCoverage, RegressionCalibration
from whydrift.pipelines import verdict_json
from whydrift.pipelines.outputs.report import render


def text(verdict):
    plain = re.sub(r"<[^>]*>", " ", render(verdict).split("</style>")[1])
    return " ".join(unescape(plain).replace("\N{NO-BREAK SPACE}", " ").split())


KEPT = ExpectationResult(
    name="relies on hour",
    asks="at least",
    limit=0.1,
    tier="page",
    passed=True,
    message="relies on hour: hour has 21.0% of all absolute attribution; at least 10.0% is expected",
    value=0.21,
    bound=0.24,
    interval=(0.18, 0.24),
    baseline=0.2,
    feature="hour",
)
BROKEN = ExpectationResult(
    name="<b>proxy",
    asks="at most",
    limit=0.01,
    tier="ticket",
    passed=False,
    message="<b>proxy: seats has 8.0% of all absolute attribution where origin=EWR; at most 1.0% is expected",
    value=0.08,
    bound=0.06,
    interval=(0.06, 0.1),
    slice="origin=EWR",
)
UNKNOWN = ExpectationResult(
    name="n", asks="at most", limit=0.5, tier="page", passed=None, message="n: not judged: 30 effective rows"
)


def test_broken_contracts_come_before_kept_ones(make_verdict):
    page = text(make_verdict(expectations=(KEPT, BROKEN, UNKNOWN)))
    places = [page.index(part) for part in ("<b>proxy: seats has 8.0%", "n: not judged", "relies on hour: hour has")]
    assert places == sorted(places)
    assert "origin=EWR no" in page
    assert "0.210 [0.180, 0.240] at least 0.100 all yes" in page
    assert "at most 0.500 all not judged" in page


def test_without_contracts_nothing_is_said(make_verdict):
    assert "Reason contracts" not in text(make_verdict())


def regression(pit):
    return RegressionCalibration(
        cohort_start=datetime(2026, 4, 1, tzinfo=UTC),
        cohort_end=datetime(2026, 4, 2, tzinfo=UTC),
        rows=1800,
        bias=-3.25,
        bias_interval=(-3.5, -3.0),
        baseline_bias=0.5,
        coverage=(
            IntervalCoverage(nominal=0.9, low=-12.5, high=11.0, observed=0.78, interval=(0.76, 0.8), baseline=0.901),
        ),
        pit=pit,
        pit_band=(0.04, 0.06),
    )


def test_a_regression_has_its_errors_in_place_of_the_reliability_diagram(make_verdict):
    verdict = make_verdict(calibration=None, regression=regression((0.2, *[0.05] * 14, *[0.02] * 5)))
    page = text(verdict)
    assert "Are errors as large as they used to be, and to both sides?" in page
    assert "90.0 %: −12.5 to +11 90.1 % 78.0 % [76.0 %, 80.0 %]" in page
    assert "+0.500 in the baseline, −3.25 now [−3.50, −3]" in page
    assert "1,800 labelled rows" in page
    assert "No calibration" not in page
    html = render(verdict)
    assert html.count('var(--moved)"><title>') == 6  # one above the band and five below
    assert html.count('var(--now)"><title>') == 14


@pytest.mark.parametrize("pit", [(1.0, *[0.0] * 19), (*[0.0] * 19, 1.0), (0.05,) * 20])
def test_bars_stay_inside_the_picture(make_verdict, pit):
    html = render(make_verdict(calibration=None, regression=regression(pit)))
    bars = re.findall(r'<rect x="[\d.]+" y="([\d.]+)" width="16" height="([\d.]+)"', html)
    assert len(bars) == 20
    assert all(float(y) >= 9.99 and float(y) + float(height) <= 110.01 for y, height in bars)


def test_the_verdicts_json_keeps_both(make_verdict):
    verdict = make_verdict(expectations=(KEPT, BROKEN, UNKNOWN), regression=regression((0.05,) * 20))
    assert verdict_json.from_json(verdict_json.to_json(verdict), "here") == verdict
