"""Golden rows are replayed through the live model and explainer, and any difference pages and is named."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from statistics import median

import pytest

from judging import FIRST, evaluate
from whydrift.monitors.summary import merge
from whydrift.pipelines import config as configuration
from whydrift.pipelines import job as jobs
from whydrift.pipelines.job import Job
from whydrift.pipelines.rows import make_explainer
from whydrift.pipelines.window import Window, split


@dataclass
class Altered:
    """The explainer with all that names it, whose numbers are those of another."""

    inner: object
    values: float = 1.0
    output: float = 0.0
    asked: list[int] = field(default_factory=list)

    name = property(lambda self: self.inner.name)
    link = property(lambda self: self.inner.link)
    parameters = property(lambda self: self.inner.parameters)

    def explain(self, features):
        self.asked.append(len(features))
        found = self.inner.explain(features)
        return replace(found, values=found.values * self.values, output=found.output + self.output)


@pytest.fixture
def alter(monkeypatch):
    def run(**changes):
        made = []

        def make(*arguments):
            made.append(Altered(make_explainer(*arguments), **changes))
            return made[-1]

        monkeypatch.setattr(jobs, "make_explainer", make)
        return made

    return run


def golden(project, days=1):
    """The golden block of the summaries of the first days, merged."""
    job = Job.open(configuration.load(project.config))
    width = job.config.window.every
    windows = [Window(FIRST + i * width, FIRST + (i + 1) * width) for i in range(days)]
    frame = merge([job.store.read_summary(job.key(window)) for window in windows]).frame()
    block = frame[frame["block"] == "golden"]
    return dict(zip(block["name"] + block["stat"], block["value"], strict=True))


def test_a_model_that_answers_as_before_shows_no_difference(project):
    assert evaluate(project)["status"] != "page"
    assert golden(project) == {"rows": 500}


def test_the_rows_are_asked_once_a_process_and_counted_once_a_window(project, alter):
    made = alter()
    assert project.window("backfill", FIRST, days=4).code == 0
    assert sum(explainer.asked.count(500) for explainer in made) == 1
    assert golden(project, days=4) == {"rows": 2000}


def test_another_explainer_under_the_same_name(project, alter):
    alter(values=1.001)
    verdict = evaluate(project)
    assert (verdict["status"], verdict["cause"]["kind"]) == ("page", "explainer_changed")
    finding = next(f for f in verdict["findings"] if f["stream"] == "golden_attribution")
    assert finding["value"] > 0.9
    assert "golden rows are explained differently; most of all" in finding["message"]
    assert finding["message"] in verdict["cause"]["grounds"]
    assert verdict["retraining"]["requested"] is False


def test_another_model_under_the_same_digest(project, alter):
    alter(output=0.01)
    verdict = evaluate(project)
    assert (verdict["status"], verdict["cause"]["kind"]) == ("page", "model_changed")
    assert verdict["cause"]["grounds"][0].startswith("500 of 500 golden rows are not answered as they were")


def test_a_day_without_rows_is_told_as_well(project, alter):
    alter(output=0.01)
    project.edit_log(FIRST, lambda frame: frame.head(0))
    assert evaluate(project)["cause"]["kind"] == "model_changed"


def test_the_baseline_fixes_the_rows_of_a_usual_window(project):
    """By which an explainer is chosen, so that all windows have the same one."""
    job = Job.open(configuration.load(project.config))
    period = job.config.baseline
    windows = split(period.start, period.end, job.config.window.every)
    assert job.baseline.usual_rows == median(len(job.summariser.log.read(window).frame) for window in windows)
