"""What the report says of the features that make the model wrong."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import timedelta
from html import unescape
from xml.etree import ElementTree as ET

import pytest

from whydrift.monitors.verdict import Status
from whydrift.pipelines import verdict_json
from whydrift.pipelines.outputs import charts
from whydrift.pipelines.outputs.report import LOSS_FEATURES, render

DAY = timedelta(days=1)


def text(verdict, history=()):
    plain = re.sub(r"<[^>]*>", " ", render(verdict, history).split("</style>")[1])
    return " ".join(unescape(plain).replace("\N{NO-BREAK SPACE}", " ").split()).replace(" :", ":").replace(" ,", ",")


def cohorts(told, days):
    """The same cohort on other days, oldest first."""
    return [replace(told, cohort_start=told.cohort_start - d * DAY, cohort_end=told.cohort_end - d * DAY) for d in days]


def marks(svg, colour):
    return [e for e in ET.fromstring(svg).iter("use") if f"fill: var(--{colour})" in e.get("style", "")]


def test_the_numbers_and_their_sum(make_verdict):
    page = text(make_verdict())
    for said in (
        "Which feature makes the model wrong",
        "The mean loss (brier) is 0.110 and was 0.160: 0.150 (was 0.170) if no feature were known, and −0.040 by the",
        "temp −0.020 +0.010 0.0040 +0.030 +4.40 hour −0.040 −0.050 0.0070 −0.010 −1.20",
        "over 203 labelled rows predicted from 2013-05-12 00:00 to 2013-05-13 00:00 UTC, 22.0 % of all",
        "against 20 rows of the baseline. 2 more rows could not be explained. It has no part in this verdict's status.",
    ):
        assert said in page
    assert '<tr class="named"><td>temp</td>' in render(make_verdict())
    assert '<tr class="named"><td>hour</td>' not in render(make_verdict())


def test_a_mark_a_cohort_and_a_gap_where_one_is_missing(make_verdict):
    told = make_verdict().loss_attribution
    svg = charts.losses(cohorts(told, [5, 4, 2, 1, 0]), ["temp", "hour"])
    assert (len(marks(svg, "moved")), len(marks(svg, "now"))) == (5, 5)
    lines = re.findall(r'd="M [\d.]+ [\d.]+\s+L [\d.]+ [\d.]+\s*"[^>]*stroke: var\(--then\)', svg)
    assert len(lines) == 2 * 3
    assert charts.losses(cohorts(told, [5, 4, 2, 1, 0]), ["temp", "hour"]) == svg


def test_without_a_baseline_there_is_no_band(make_verdict):
    told = make_verdict().loss_attribution
    bare = replace(
        told,
        baseline_mean=None,
        baseline_expected=None,
        features=tuple(replace(f, baseline=None, deviation=None, change=None, effect=None) for f in told.features),
    )
    assert "var(--band)" in charts.losses([told], ["temp"])
    assert "var(--band)" not in charts.losses([bare], ["temp"])
    page = text(make_verdict(loss_attribution=bare))
    assert "The mean loss (brier) is 0.110: 0.150 if no feature were known" in page
    assert "temp – +0.010 0.0040 – –" in page


def test_the_largest_changes_of_all_windows_are_drawn(make_verdict):
    verdict = make_verdict()
    told = verdict.loss_attribution
    more = tuple(replace(told.features[1], feature=f"<f{i}>", change=-0.009 * i) for i in range(1, 6))
    verdict = make_verdict(loss_attribution=replace(told, features=(*more, told.features[0])))
    history = [
        replace(
            verdict,
            key=replace(verdict.key, start=verdict.key.start - d * DAY, end=verdict.key.end - d * DAY),
            loss_attribution=cohorts(verdict.loss_attribution, [d])[0] if d != 2 else None,
        )
        for d in (3, 2, 1)
    ]
    page = render(verdict, history)
    svg = next(part for part in page.split("<svg") if "Mean loss attribution" in part).partition("</svg>")[0]
    assert [name for name in ("&lt;f5&gt;", "&lt;f4&gt;", "temp", "&lt;f3&gt;", "hour") if name in svg] == [
        "&lt;f5&gt;",
        "&lt;f4&gt;",
        "temp",
    ]
    assert LOSS_FEATURES == 3
    assert "<f1>" not in page
    assert len(marks(f"<svg{svg}</svg>", "moved")) == 3


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "too few labelled rows were explained, or loss_attribution was off"),
        ({"status": Status.NOT_EVALUATED}, "Not known: the window was not evaluated"),
    ],
)
def test_why_there_is_nothing(make_verdict, changes, said):
    assert said in text(make_verdict(loss_attribution=None, **changes))


def test_no_labels_are_said(make_verdict):
    rows = replace(make_verdict().rows, labelled=0)
    assert "Not known: no mature labels reached this window" in text(make_verdict(loss_attribution=None, rows=rows))


def test_json_keeps_it(make_verdict):
    verdict = make_verdict()
    assert verdict_json.from_json(verdict_json.to_json(verdict), "here").loss_attribution == verdict.loss_attribution
