"""A calibrated threshold and muted streams are said wherever the budget is."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from whydrift.monitors.verdict import Mute
from whydrift.pipelines.outputs.report import render
from whydrift.pipelines.show import as_text

_MUTE = Mute(
    since=datetime(2013, 5, 1, tzinfo=UTC),
    until=datetime(2013, 6, 1, tzinfo=UTC),
    reason="a <known> migration",
    kind="share",
    feature="temp",
)


def test_a_calibrated_threshold_says_what_was_simulated(make_verdict):
    verdict = make_verdict()
    assert "simulated" not in render(verdict)
    budget = replace(verdict.budget, simulated_false_pages=0.63, simulated_interval=(0.41, 0.97))
    page = render(replace(verdict, budget=budget)).replace("\N{NO-BREAK SPACE}", " ")
    assert "came to 0.630 false pages in 90 days (95 % interval 0.410 to 0.970)" in page


def test_a_mute_is_said_with_its_reason_and_end(make_verdict):
    verdict = make_verdict(muted=(_MUTE,))
    page = render(verdict).replace("\N{NO-BREAK SPACE}", " ")
    assert "Muted from 2013-05-01 00:00 until 2013-06-01 00:00 (UTC): share, temp; a &lt;known&gt; migration." in page
    text = as_text(verdict).replace("\N{NO-BREAK SPACE}", " ")
    assert (
        "  muted    Muted from 2013-05-01 00:00 until 2013-06-01 00:00 (UTC): share, temp; a <known> migration." in text
    )
    assert "muted" not in as_text(make_verdict())
