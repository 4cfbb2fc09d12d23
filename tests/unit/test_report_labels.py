"""What the report says of labels that are late, few or absent."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime
from html import unescape

import pytest

from whydrift.monitors.verdict_labels import (
    AuditEstimate,
    CohortEstimate,
    LabelMaturity,
    LabelView,
    PerformanceEstimate,
)
from whydrift.pipelines.outputs.report import render
from whydrift.pipelines.verdict_json import from_json, to_json

START, END = datetime(2013, 5, 12, tzinfo=UTC), datetime(2013, 5, 13, tzinfo=UTC)
MATURITY = LabelMaturity(
    cohort_start=START, cohort_end=END, coverage=0.91, negatives=0.97, positives=0.93, mature=True, cohorts=40
)
YOUNG = CohortEstimate(
    cohort_start=START,
    cohort_end=END,
    age=1,
    rows=1200,
    labelled=600,
    coverage=0.5,
    base_rate_bounds=(0.1, 0.6),
    loss_bounds=(0.05, 0.41),
    seen_base_rate=0.2,
    seen_loss=0.11,
    base_rate=0.31,
    base_rate_interval=(0.28, 0.34),
    calibration=-0.02,
    calibration_interval=(-0.05, 0.01),
    loss=0.14,
    loss_interval=(0.12, 0.16),
)
EXPECTED = PerformanceEstimate(
    method="cbpe",
    threshold=0.5,
    true_positive=0.1,
    false_positive=0.05,
    true_negative=0.8,
    false_negative=0.05,
    accuracy=0.9,
    auroc=0.81,
    brier=0.12,
    log_loss=0.31,
    baseline_accuracy=0.92,
    baseline_auroc=0.83,
    baseline_brier=0.101,
    baseline_log_loss=0.29,
)
VIEW = LabelView(
    maturity=MATURITY,
    cohorts=(YOUNG,),
    estimates=(EXPECTED, replace(EXPECTED, method="pape", feature="temp", accuracy=0.88)),
    audit=(AuditEstimate(of="loss", audited=151, value=0.13, interval=(0.11, 0.15)),),
)


def text(verdict):
    plain = re.sub(r"<[^>]*>", " ", render(verdict).split("</style>")[1])
    return " ".join(unescape(plain).replace("\N{NO-BREAK SPACE}", " ").split())


def test_everything_is_told(make_verdict):
    page = text(make_verdict(labels=VIEW))
    for said in (
        "91.0 % of what was predicted from 2013-05-12 00:00 to 2013-05-13 00:00 UTC is labelled",
        "93.0 % of the positives' and 97.0 % of the negatives' labels were there in 40 windows",
        "2013-05-12 00:00 1 1,200 50.0 % 0.200 0.310 [0.280, 0.340] 0.100 to 0.600 0.110 0.140 [0.120, 0.160]",
        "0.050 to 0.410 −0.020 [−0.050, 0.010]",
        "Baseline, labelled 92.0 % 0.830 0.101 0.290",
        "CBPE 90.0 % 0.810 0.120 0.310 10.0 % 5.0 % 5.0 % 80.0 %",
        "PAPE, by temp 88.0 %",
        "Both are blind to a changed concept",
        "Mean loss of the mature cohort: 0.130 [0.110, 0.150] , from 151 rows that were labelled by chance",
    ):
        assert said in page
    assert "Not mature" not in page


def test_an_immature_cohort_is_a_warning(make_verdict):
    page = text(make_verdict(labels=replace(VIEW, maturity=replace(MATURITY, positives=0.6, mature=False))))
    assert "Not mature: 90 % of both are needed" in page
    assert "raise labels.mature_after" in page


def test_what_is_not_known_is_said(make_verdict):
    unknown = replace(MATURITY, positives=None, negatives=None, mature=None, cohorts=0)
    page = text(make_verdict(labels=LabelView(maturity=unknown)))
    assert "is not known: the baseline has too few windows whose labels are complete" in page
    assert "No estimate: the window has too few rows" in page
    assert "Cohorts on their way" not in page
    assert "Audit sample" not in page
    young = replace(YOUNG, base_rate=None, base_rate_interval=None, loss=None, loss_interval=None, seen_loss=None)
    page = text(make_verdict(labels=LabelView(cohorts=(young,))))
    assert "Not known: nothing is stored of this window's labels" in page
    assert "0.200 – 0.100 to 0.600 – – 0.050 to 0.410" in page
    assert "Nothing: the model has no labels" in text(make_verdict(labels=None))


@pytest.mark.parametrize("view", [VIEW, LabelView(), None])
def test_a_verdict_survives_its_json(make_verdict, view):
    verdict = make_verdict(labels=view)
    assert from_json(to_json(verdict), "x") == verdict


def test_no_name_becomes_markup(make_verdict):
    hostile = replace(EXPECTED, method="pape", feature="<img src=x>")
    page = render(make_verdict(labels=LabelView(estimates=(hostile,))))
    assert "<img" not in page
    assert "&lt;img" in page
