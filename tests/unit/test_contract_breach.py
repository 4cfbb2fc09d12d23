"""What a broken contract comes to: who hears of it, what it is called, and what comes before it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from whydrift.monitors.calibration import MESH, ScoreMesh
from whydrift.monitors.comparison import Contracts, Margins, PairedWindow, Side, compare
from whydrift.monitors.contract_sums import read_sums
from whydrift.monitors.expectations import Direction, Expectation, Largest, Share, measure_all
from whydrift.monitors.verdict import CauseKind, Channel, Status
from whydrift.pipelines import verdict_json

DIGESTS = {"model": "a" * 64, "explainer": "b" * 64}
RELIES = Expectation("relies on x1", Share(0.2, "at least", feature="x1"))
MARGINS = Margins(0.5, 0.1, 0.1, 1.5, 0.95, 5, 200)


@pytest.fixture
def expecting(reference):
    """The reference with expectations; what else it fits does not depend on them."""

    def make(*expectations):
        settings = replace(reference.settings, expectations=expectations)
        usual = measure_all(expectations, reference.frame, reference.layout, settings.min_rows)
        return replace(reference, settings=settings, reasons=usual)

    return make


def without_x1(values):
    values = values.copy()
    values[:, 0] = 0.0
    return values


def test_a_kept_contract_is_in_the_verdict_and_says_nothing(world, expecting):
    largest = Expectation("balanced", Largest(0.9), tier="ticket")
    (verdict,) = world.verdicts(expecting(RELIES, largest), world.windows(1))
    assert verdict.status is Status.OK
    assert [(e.name, e.passed) for e in verdict.expectations] == [("relies on x1", True), ("balanced", True)]
    assert verdict.expectations[0].baseline == pytest.approx(verdict.expectations[0].value, abs=0.05)
    assert verdict_json.from_json(verdict_json.to_json(verdict), "here") == verdict


def test_a_breach_pages_at_once_and_its_cause_is_that_it_is_broken(world, expecting):
    # Less of x1 than before, and no other part of the world moved: nothing but the contract speaks on the first day.
    strict = Expectation("strict", Share(0.6, "at least", feature="x1"))
    first, second = world.verdicts(expecting(strict), world.windows(2))
    for verdict in (first, second):
        assert verdict.status is Status.PAGE
        assert verdict.cause.kind is CauseKind.UNKNOWN
        assert verdict.cause.onset == first.key.start
        assert verdict.cause.features == ("x1",)
        assert verdict.cause.sentence == verdict.expectations[0].message
        assert "Decide whether the contract or the model is wrong" in verdict.cause.next_step
        assert not verdict.retraining.requested
    (finding,) = [f for f in first.findings if f.stream == "expectation"]
    assert finding.channel is Channel.CHECK
    assert finding.threshold == 0.6
    assert finding.value < finding.interval[1] < 0.6


def test_a_ticket_contract_opens_a_ticket_and_no_page(world, expecting):
    strict = Expectation("strict", Share(0.6, "at least", feature="x1"), tier="ticket")
    (verdict,) = world.verdicts(expecting(strict), world.windows(1))
    assert verdict.status is Status.TICKET
    assert verdict.cause is None
    assert verdict.headline.startswith("Worth a look: strict: x1 has ")


def test_what_explains_a_breach_is_named_before_it(world, expecting):
    broken = world.change(
        values=without_x1, digests={**DIGESTS, "model": "c" * 64}, inputs=lambda frame: frame.assign(x1=0.0)
    )
    (verdict,) = world.verdicts(expecting(RELIES), world.windows(1, {0: broken}))
    assert verdict.cause.kind is CauseKind.MODEL_CHANGED
    assert "expectation" in {f.stream for f in verdict.findings}


def test_too_few_rows_judge_no_contract(world, expecting):
    (verdict,) = world.verdicts(expecting(RELIES), world.windows(1, {0: world.change(rows=30, values=without_x1)}))
    assert verdict.status is Status.INSUFFICIENT_DATA
    assert [e.passed for e in verdict.expectations] == [None]


def paired(world, *, days=7, values=lambda v: v):
    """Windows of two equal models, of which the candidate has other attributions."""
    labelled = np.full(MESH, 5.0)
    side = Side(np.array([3.0, 2.0]), ScoreMesh(labelled, labelled / 2, 100.0, 1000.0), {"": 100.0})
    for day in range(days):
        summary, _ = world.summaries(40 + day, world.change(values=values))
        yield PairedWindow(
            side, side, {"": 1000.0}, {"": 1000}, reasons={None: read_sums(summary.frame(), world.layout)}
        )


def keep(values):
    return values


def test_the_gate_asks_the_candidate_to_keep_every_expectation(world):
    rises = Expectation("rises", Direction("x2", positive=True))
    contracts = Contracts((RELIES, rises), world.layout)
    kept = compare(list(paired(world, values=keep)), MARGINS, classifier=True, contracts=contracts)
    assert kept.passed is True
    assert [c.name for c in kept.checks][-2:] == ["expectation:relies on x1", "expectation:rises"]
    assert "x1 has " in kept.checks[-2].message
    assert kept.checks[-2].bound < kept.checks[-2].value
    lost = compare(list(paired(world, values=without_x1)), MARGINS, classifier=True, contracts=contracts)
    assert [c.name for c in lost.checks if not c.passed] == ["expectation:relies on x1"]
    assert lost.passed is False


def test_the_gate_holds_the_bound_and_not_the_value_against_the_limit(world):
    windows = list(paired(world, values=keep))
    (check,) = compare(windows, MARGINS, classifier=True, contracts=Contracts((RELIES,), world.layout)).checks[-1:]
    tight = replace(RELIES, asserts=Share((check.value + check.bound) / 2, "at least", feature="x1"))
    (failed,) = compare(windows, MARGINS, classifier=True, contracts=Contracts((tight,), world.layout)).checks[-1:]
    assert failed.value == check.value > failed.limit
    assert failed.passed is False


def test_the_gate_does_not_pass_what_it_cannot_judge(world):
    windows = list(paired(world, values=keep))
    elsewhere = replace(RELIES, slice="carrier=a")
    result = compare(windows, MARGINS, classifier=True, contracts=Contracts((elsewhere,), world.layout))
    assert result.passed is None
    assert "0 windows have what it takes, 5 are needed" in result.checks[-1].message
