"""What the report says of the explanations themselves, and of other tools."""

from __future__ import annotations

import re
from dataclasses import replace
from html import unescape

import pytest

from whydrift.monitors.verdict import FeatureSoundness, PeerStatistic, Status
from whydrift.pipelines.outputs.report import render


def text(verdict):
    plain = re.sub(r"<[^>]*>", " ", render(verdict).split("</style>")[1])
    return " ".join(unescape(plain).replace("\N{NO-BREAK SPACE}", " ").split())


def with_soundness(verdict, **changes):
    return replace(verdict, soundness=replace(verdict.soundness, **changes))


def test_an_exact_explainer_without_a_background(make_verdict):
    page = text(make_verdict())
    for said in (
        "every explanation of this window sums to the model's output",
        "Sampling: none, xgboost:pred_contribs computes attributions",
        "Background: not measured",
        "noise of 0.020 standard deviations on the numeric features moves a typical row's attributions by up to 4.3 %",
        "of their size, 1.70 units of the output per standard deviation",
        "permutation explainer on 55 rows. Of the 2 largest features of a row 91.0 % are the same and 88.0 % have",
        "rank correlation 0.840",
        "temp – – 6.0 %",
    ):
        assert said in page


def test_a_sampling_explainer(make_verdict):
    features = tuple(FeatureSoundness(feature=f"f{i}", error=0.02 * (i + 1), background=0.1) for i in range(3))
    page = text(with_soundness(make_verdict(), features=features, backgrounds=5, agreement=None, not_additive=0.25))
    for said in (
        "25.0 % of this window's explanations miss the model's output",
        "The standard error of one row's is 2.0 % to 6.0 % of the feature's",
        "with 5 other samples of background rows",
        "Second method: none",
        "f2 6.0 % 10.0 % –",
    ):
        assert said in page


@pytest.mark.parametrize("part", ["sensitivity", "lipschitz", "not_additive"])
def test_what_is_not_known_is_said(make_verdict, part):
    page = text(with_soundness(make_verdict(), **{part: None}))
    assert ("Stability: not measured" in page) == (part == "sensitivity")
    assert ("Adding up: not known" in page) == (part == "not_additive")
    assert "Not measured: the verdict was written without" in text(make_verdict(soundness=None))


def test_whose_thresholds_are_crossed(make_verdict):
    page = text(make_verdict())
    assert "Amazon SageMaker: 0 of 1 thresholds crossed" in page
    assert "rule of thumb: 1 of 1 thresholds crossed" in page
    assert "all features NDCG of the ranking 0.970 0.900 Amazon SageMaker no" in page
    assert "all features Kendall's tau of the ranking 0.800 – – –" in page
    assert "temp, input PSI 2.10 0.200 rule of thumb yes" in page
    assert "No statistics: 0 of 37 rows" in text(
        make_verdict(status=Status.INSUFFICIENT_DATA, peers=(), rows=replace(make_verdict().rows, seen=37, explained=0))
    )


def test_every_statistic_has_a_name_for_people(make_verdict, world, reference):
    verdict = world.verdicts(reference, world.windows(1))[0]
    assert len({p.statistic for p in verdict.peers}) == 12
    page = text(replace(make_verdict(), peers=verdict.peers))
    for name in ("Hellinger distance", "Largest difference of shares", "Wasserstein / standard deviation"):
        assert name in page
    assert "_" not in page.split("What other tools would say")[1].split("Identity")[0]


def test_no_name_becomes_markup(make_verdict):
    hostile = "<img src=x>"
    verdict = with_soundness(make_verdict(), features=(FeatureSoundness(feature=hostile),), explainer=hostile)
    peers = (PeerStatistic(statistic="psi", of="input", feature=hostile, value=1.0, tool=hostile, alerts=True),)
    page = render(replace(verdict, peers=peers))
    assert "<img" not in page
    assert page.count("&lt;img") >= 4
