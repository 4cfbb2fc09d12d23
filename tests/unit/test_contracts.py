"""The `expectations` of a configuration: what they come to, and where a mistake in them is."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from whydrift.monitors.conformal import MIN_RESIDUALS, fit_residual_edges
from whydrift.monitors.expectations import Direction, Expectation, Largest, Monotone, Share
from whydrift.pipelines import config as configuration
from whydrift.pipelines.contracts import expectations
from whydrift.pipelines.errors import ConfigError
from whydrift.pipelines.rows import LogReader, Summariser, learn_residuals
from whydrift.pipelines.sources.records import Records
from whydrift.pipelines.window import Window

MINIMAL = """\
model: {name: meters, task: %s}
mlflow: {tracking_uri: "sqlite:///mlflow.db"}
inference_log: {path: logs}
labels: {path: labels, mature_after: 1d}
baseline: {start: 2024-01-01, end: 2024-02-01}
slices: [carrier]
groups: {sensors: [x1, x2]}
store: store
outputs: outputs
"""


@pytest.fixture
def load(tmp_path):
    def from_text(expected="  []", task="binary"):
        path = tmp_path / "meters.yaml"
        path.write_text(MINIMAL % task + f"expectations:\n{expected}\n")
        return configuration.load(path)

    return from_text


WHOLE = """\
  - share: {feature: x1, min: 0.1, max: 0.6}
  - share: {group: sensors, min: 0.2}
    slice: carrier=a
    tier: ticket
  - no_single_feature_above: 0.5
  - forbidden: {features: [x3, carrier]}
    name: no proxies
  - direction: {feature: x1, effect: negative}
  - monotone: {feature: x2, response: increasing, slack: 0.1}
    slice: carrier=b
"""


def test_what_they_come_to(load, world):
    assert expectations(load(WHOLE).expectations, world.layout) == (
        Expectation("share of x1 at least 0.1", Share(0.1, "at least", feature="x1")),
        Expectation("share of x1 at most 0.6", Share(0.6, "at most", feature="x1")),
        Expectation(
            "share of sensors at least 0.2 where carrier=a",
            Share(0.2, "at least", group="sensors"),
            "carrier=a",
            "ticket",
        ),
        Expectation("no single feature above 0.5", Largest(0.5)),
        Expectation("no proxies: x3", Share(0.01, "at most", feature="x3")),
        Expectation("no proxies: carrier", Share(0.01, "at most", feature="carrier")),
        Expectation("negative effect of x1", Direction("x1", positive=False)),
        Expectation("increasing response to x2 where carrier=b", Monotone("x2", rising=True, slack=0.1), "carrier=b"),
    )
    assert [e.limit for e in expectations(load(WHOLE).expectations, world.layout)[5:]] == [0.01, 0.0, 0.1]


def test_without_any_nothing_is_expected(load, world):
    assert expectations(load().expectations, world.layout) == ()


@pytest.mark.parametrize(
    ("item", "line", "said"),
    [
        ("share: {feature: x1, group: sensors, min: 0.1}", 11, "expectations.0.share: name a feature or a group"),
        ("share: {feature: x1}", 11, "expectations.0.share: bounds nothing"),
        ("share: {feature: x1, min: 0.5, max: 0.4}", 11, "expectations.0.share: min: 0.5 is above max: 0.4"),
        ("share: {feature: x1, max: 1.4}", 11, "expectations.0.share.max: Input should be less than or equal to 1"),
        ("tier: page", 11, "expectations.0: set exactly one of share, no_single_feature_above, forbidden, direction"),
        ("no_single_feature_above: 0.5\n    direction: {feature: x1, effect: positive}", 11, "set exactly one of"),
        ("direction: {feature: x1, effect: up}", 11, "expectations.0.direction.effect: Input should be 'positive'"),
        ("share: {group: sensor, min: 0.1}", 11, "'sensor' is no configured group: sensors"),
        ("no_single_feature_above: 0.5\n    slice: origin=a", 12, "is not column=value of a configured slice: carrier"),
        ("no_single_feature_above: 0.5\n  - no_single_feature_above: 0.5", 12, "a second one is named 'no single"),
    ],
)
def test_a_mistake_is_told_with_its_line(load, item, line, said):
    with pytest.raises(ConfigError) as error:
        load(f"  - {item}")
    assert f"meters.yaml:{line}: " in str(error.value)
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("item", "said"),
    [
        ("direction: {feature: x9, effect: positive}", "expectations.0.direction.feature: 'x9' is no feature of the"),
        ("forbidden: {features: [x1, x9]}", "expectations.0.forbidden.features.1: 'x9' is no feature of the model"),
        (
            "monotone: {feature: carrier, response: increasing}",
            "monotone.feature: 'carrier' has categories, which have",
        ),
        (
            "no_single_feature_above: 0.5\n    slice: carrier=z",
            "slice: the baseline has no 'carrier=z'; it has carrier=a",
        ),
    ],
)
def test_what_the_model_does_not_have_is_told(load, world, item, said):
    with pytest.raises(ConfigError) as error:
        expectations(load(f"  - {item}").expectations, world.layout)
    assert said in str(error.value)


def test_they_are_part_of_the_configurations_digest(load):
    assert load(WHOLE).digest() != load().digest()


def test_a_misspelt_key_is_met_with_the_right_one(load):
    with pytest.raises(ConfigError, match="did you mean no_single_feature_above"):
        load("  - no_single_feature_over: 0.5")


def test_they_are_what_the_committed_schema_has():
    content = yaml.safe_load(configuration.json_schema())
    assert content["properties"]["expectations"]["items"] == {"$ref": "#/$defs/Expected"}


@pytest.fixture
def regression(load, make_world, tmp_path):
    """A summariser of a regression, and a function that writes a day's labels and gives its records."""
    config = load(task="regression")
    layout = make_world(task="regression").layout
    features = dict.fromkeys(("x1", "x2", "x3"), "number") | {"carrier": "string"}
    summariser = Summariser(LogReader(config, None, features), None, layout, "d")

    def day(number, rows):
        rng = np.random.default_rng(number)
        start = datetime(2024, 1, 1, tzinfo=UTC) + timedelta(days=number)
        frame = pd.DataFrame(rng.normal(size=(rows, 3)), columns=["x1", "x2", "x3"]).assign(carrier="a")
        frame = frame.assign(event_id=[f"{number}-{i}" for i in range(rows)], prediction=rng.normal(size=rows))
        frame["weight"] = rng.uniform(1, 2, rows)
        labels = frame[["event_id"]].assign(label=frame["prediction"] + rng.normal(size=rows), label_time=start)
        (tmp_path / "labels").mkdir(exist_ok=True)
        pq.write_table(pa.Table.from_pandas(labels), tmp_path / "labels" / f"{number}.parquet")
        return (Window(start, start + timedelta(days=1)), Records(frame, {})), labels["label"] - frame["prediction"]

    return summariser, day


def test_a_baseline_learns_the_residuals_of_its_labels(regression):
    summariser, day = regression
    made = [day(number, MIN_RESIDUALS) for number in range(3)]
    learned = learn_residuals(summariser, [cohort for cohort, _ in made])
    weight = np.concatenate([records.frame["weight"] for (_, records), _ in made])
    residuals = np.concatenate([residual for _, residual in made]) / summariser.layout.loss_scale
    assert learned.layout.residual_edges == fit_residual_edges(residuals, weight)
    assert len(learned.layout.residual_edges) == 39
    assert replace(learned.layout, residual_edges=()) == summariser.layout


def test_few_labels_or_a_classifier_learn_none(regression, world):
    summariser, day = regression
    cohorts = [day(0, 50)[0]]
    assert learn_residuals(summariser, cohorts).layout.residual_edges == ()
    binary = replace(summariser, layout=world.layout)
    assert learn_residuals(binary, cohorts) is binary
    assert learn_residuals(summariser, []) is summariser
