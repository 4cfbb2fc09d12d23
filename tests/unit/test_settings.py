"""From the configuration to what the monitors are told: tolerances, holidays, mutes, and the page threshold."""

from dataclasses import replace
from datetime import UTC, date, datetime

import pytest
import yaml
from pydantic import ValidationError

from whydrift.monitors.evidence import Thresholds
from whydrift.monitors.findings import _WORDS
from whydrift.monitors.reference import _tolerant
from whydrift.monitors.streams import list_streams
from whydrift.monitors.threshold import Calibrated
from whydrift.monitors.verdict import Mute
from whydrift.pipelines import calibrating
from whydrift.pipelines.config import Config
from whydrift.pipelines.errors import BaselineError
from whydrift.pipelines.sections import Tolerances
from whydrift.pipelines.settings import settings

MINIMAL = {
    "model": {"name": "meters"},
    "mlflow": {"tracking_uri": "sqlite:///mlflow.db"},
    "inference_log": {"path": "logs"},
    "baseline": {"start": "2024-01-01", "end": "2024-02-01"},
    "store": "store",
    "outputs": "outputs",
}
MUTE = {"feature": "x1", "since": "2026-04-01", "until": "2026-04-20", "reason": "sensor swap"}


def config(**sections) -> Config:
    return Config.model_validate({**MINIMAL, **sections})


def test_every_kind_of_stream_has_a_tolerance():
    assert set(Tolerances.model_fields) == set(_WORDS)
    assert all(field.description for field in Tolerances.model_fields.values())


def test_nothing_is_tolerated_or_muted_unless_it_is_said():
    plain = settings(config())
    assert (plain.tolerances, plain.holidays, plain.mutes, plain.calibrated) == ({}, frozenset(), (), None)
    assert (plain.thresholds.page, plain.thresholds.ticket) == (90, 7)


def test_what_is_said_arrives():
    said = yaml.safe_load("""
      tolerances: {share: 0.05, loss: 2}
      calendar: {holidays: [2026-12-25, "2027-01-01"]}
      mutes: [{feature: x1, since: 2026-04-01, until: 2026-04-20, reason: sensor swap}]
    """)
    found = settings(config(**said))
    assert found.tolerances == {"share": 0.05, "loss": 2}
    assert found.holidays == {date(2026, 12, 25), date(2027, 1, 1)}
    since, until = datetime(2026, 4, 1, tzinfo=UTC), datetime(2026, 4, 20, tzinfo=UTC)
    assert found.mutes == (Mute(since=since, until=until, reason="sensor swap", feature="x1"),)


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"tolerances": {"shares": 0.1}}, "shares"),
        ({"tolerances": {"share": -0.1}}, "greater than or equal to 0"),
        ({"calendar": {"holidays": ["2026-02-30"]}}, "holidays"),
        ({"mutes": [{**MUTE, "until": "2026-04-01"}]}, "must be after since"),
        ({"mutes": [{**MUTE, "feature": None}]}, "names nothing to mute"),
        ({"mutes": [{**MUTE, "kind": "shar"}]}, "is none of share, level"),
        ({"mutes": [{name: value for name, value in MUTE.items() if name != "reason"}]}, "reason"),
        ({"budget": {"threshold": "loose"}}, "guaranteed"),
    ],
)
def test_mistakes_are_told(section, message):
    with pytest.raises(ValidationError, match=message):
        config(**section)


def test_a_tolerance_is_in_units_of_the_output(make_world):
    world = make_world(task="regression")
    asked = replace(world.settings, tolerances={"share": 0.1, "loss": 8.0})
    streams = _tolerant(list_streams(world.layout, labels=True), world.layout, asked)
    by_kind = {stream.kind: stream.tolerance for stream in streams}
    assert by_kind["share"] == 0.1
    assert by_kind["loss"] == 8.0 / world.layout.loss_scale**2 == 2.0
    assert by_kind["level"] == 0


def test_the_detector_is_told_and_a_verdict_says_what_is_muted_and_until_when(world):
    first = Mute(since=world.start(0), until=world.start(40), reason="known", feature="x1")
    other = Mute(since=world.start(37), until=world.start(90), reason="too", kind="level")
    holidays = frozenset({world.start(36).date()})
    reference = world.refer(mutes=(first, other), tolerances={"share": 0.1}, holidays=holidays)
    detector = reference.detector
    assert (detector.mutes, detector.holidays) == ((first, other), holidays)
    assert {stream.kind for stream in detector.streams if stream.tolerance} == {"share"}
    verdicts = world.verdicts(reference, world.windows(7))
    assert [v.muted for v in verdicts] == 2 * [(first,)] + 3 * [(first, other)] + 2 * [(other,)]


def test_slow_drift_becomes_a_ticket_with_words(world, reference):
    """x1 varies more; evidence is kept from saying so by thresholds that nothing reaches."""
    change = world.change(inputs=lambda frame: frame.assign(x1=1.5 * frame["x1"]))
    never = Thresholds(1e300, 1e300)
    deaf = replace(
        reference,
        detector=replace(reference.detector, thresholds=never),
        settings=replace(reference.settings, thresholds=never),
    )
    verdicts = world.verdicts(deaf, world.windows(30, change))
    heard = [[f for f in v.findings if f.channel == "evidence"] for v in verdicts]
    assert [bool(findings) for findings in heard] == [day == 27 for day in range(30)]
    found = next(f for f in heard[27] if (f.stream, f.feature) == ("share", "x1"))
    assert found.status == "ticket"
    assert "has drifted slowly: over 28 windows it was" in found.message
    assert found.onset == world.start(world.baseline_days)
    assert found.baseline < found.interval[0] < found.value < found.interval[1]


CALIBRATED = {"threshold": 20.0, "false_pages": 0.7, "interval": [0.4, 0.99], "runs": 400}
KEPT = {"false_alarms": 1.0, "seconds": 90 * 86400.0, "result": CALIBRATED}


def test_a_calibrated_threshold_is_used_and_its_rate_is_said(world, reference):
    asked = config(budget={"threshold": "calibrated"})
    kept = calibrating.read_calibrated(asked, KEPT)
    assert kept == Calibrated(20.0, 0.7, (0.4, 0.99), 400)
    assert settings(asked, kept).thresholds.page == 20
    assert settings(asked, kept).calibrated == kept
    told = replace(reference.settings, calibrated=kept, thresholds=settings(asked, kept).thresholds)
    budget = world.verdicts(replace(reference, settings=told), world.windows(9))[-1].budget
    assert (budget.threshold, budget.page_threshold) == ("calibrated", 20)
    assert (budget.simulated_false_pages, budget.simulated_interval) == (0.7, (0.4, 0.99))
    assert budget.expected_false_pages == pytest.approx(9 / 90 * 0.99)
    plain = world.verdicts(reference, world.windows(1))[-1].budget
    assert (plain.threshold, plain.simulated_false_pages, plain.simulated_interval) == ("guaranteed", None, None)


def test_a_threshold_that_was_not_calibrated_for_this_is_refused():
    asked = config(budget={"threshold": "calibrated"})
    with pytest.raises(BaselineError, match="made without one"):
        calibrating.read_calibrated(asked, None)
    other = config(budget={"threshold": "calibrated", "page": {"false_alarms": 2, "per": "90d"}})
    with pytest.raises(BaselineError, match="made for 1 in 90 days"):
        calibrating.read_calibrated(other, KEPT)
    assert calibrating.read_calibrated(config(), KEPT) is None
    assert calibrating.read_calibrated(asked, {**KEPT, "result": None}) is None


def test_a_baseline_is_calibrated_where_that_is_asked_and_where_it_is_long_enough(world):
    digests = {"model": "a" * 64, "explainer": "b" * 64}
    windows = world.baseline()
    asked = config(budget={"threshold": "calibrated", "page": {"false_alarms": 1, "per": "30d"}})
    kept = calibrating.read_calibrated(asked, calibrating.calibrate(asked, windows, world.layout, digests))
    assert kept is not None
    assert kept.threshold <= 30
    assert kept.interval[1] <= 1
    assert calibrating.calibrate(config(), windows, world.layout, digests) is None
    assert calibrating.calibrate(asked, windows[:27], world.layout, digests)["result"] is None
