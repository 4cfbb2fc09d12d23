"""The configuration file: defaults, where a mistake is, and what its digest depends on."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from whydrift.pipelines import config as configuration
from whydrift.pipelines import verdict_json
from whydrift.pipelines.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
MINIMAL = """\
model:
  name: meters
mlflow:
  tracking_uri: sqlite:///mlflow.db
inference_log:
  path: logs
baseline:
  start: 2024-01-01
  end: 2024-02-01
store: store
outputs: outputs
"""


@pytest.fixture
def write(tmp_path):
    def to_file(text):
        path = tmp_path / "meters.yaml"
        path.write_text(text)
        return path

    return to_file


def refused(path):
    with pytest.raises(ConfigError) as error:
        configuration.load(path)
    return str(error.value)


def changed(**sections):
    content = yaml.safe_load(MINIMAL)
    for name, value in sections.items():
        content[name] = {**content.get(name, {}), **value} if isinstance(value, dict) else value
    return yaml.safe_dump(content, sort_keys=False)


def test_only_the_required_keys(write):
    config = configuration.load(write(MINIMAL))
    assert config.model.alias == "champion"
    assert config.model.task == "binary"
    assert config.window.every == timedelta(days=1)
    assert config.labels is None
    assert config.label_lag == 0
    assert config.experiment == "whydrift/meters"
    assert config.baseline.start == datetime(2024, 1, 1, tzinfo=UTC)
    assert config.budget.page.false_alarms == 1
    assert config.windows_in(config.budget.page) == 90
    assert config.windows_in(config.budget.ticket) == 7


@pytest.mark.parametrize("section", ["model", "mlflow", "inference_log", "baseline", "store", "outputs"])
def test_each_required_key_is_required(write, section):
    content = yaml.safe_load(MINIMAL)
    del content[section]
    message = refused(write(yaml.safe_dump(content)))
    assert f"{section}: Field required" in message


def test_relative_paths_start_at_the_file(write, tmp_path):
    config = configuration.load(write(changed(store="../elsewhere", labels={"path": "sub/labels"})))
    assert config.inference_log.path == str(tmp_path / "logs")
    assert config.labels.path == str(tmp_path / "sub" / "labels")
    assert config.store == str(tmp_path.parent / "elsewhere")
    assert config.mlflow.tracking_uri == f"sqlite:///{tmp_path}/mlflow.db"


@pytest.mark.parametrize("uri", ["https://mlflow.example:5000", "postgresql://db/mlflow", "sqlite:////var/mlflow.db"])
def test_other_tracking_uris_stay(write, uri):
    assert configuration.load(write(changed(mlflow={"tracking_uri": uri}))).mlflow.tracking_uri == uri


def test_remote_folders_stay(write):
    config = configuration.load(write(changed(store="s3://bucket/store", inference_log={"path": "gs://bucket/logs"})))
    assert (config.store, config.inference_log.path) == ("s3://bucket/store", "gs://bucket/logs")


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        (MINIMAL.replace("  name: meters", "  nam: meters"), 2, "model.nam: Extra inputs are not permitted"),
        (MINIMAL.replace("  name: meters", "  nam: meters"), 1, "model.name: Field required"),
        (MINIMAL + "extra: 1\n", 12, "extra: Extra inputs are not permitted"),
        (MINIMAL + "window:\n  every: 1 day\n", 13, "window.every: '1 day' is not a duration such as"),
        (MINIMAL + "window:\n  every: 3600\n", 13, "window.every: '3600' is not a duration such as"),
        (MINIMAL + "window:\n  every: 0\n", 13, "window.every: '0' is not a duration such as"),
        (MINIMAL + "window:\n  every: 7h\n", 12, "window: every: must divide a day"),
        (MINIMAL + "window:\n  min_rows: none\n", 13, "window.min_rows: Input should be a valid integer"),
        (MINIMAL + "slices:\n- a\n- [b]\n", 14, "slices.1: Input should be a valid string"),
        (MINIMAL + "retraining:\n  causes: [bad_luck]\n", 13, "retraining.causes.0: Input should be"),
        (MINIMAL.replace("2024-02-01", "soon"), 9, "baseline.end: 'soon' is not an ISO 8601 time"),
        (MINIMAL.replace("2024-02-01", "2024-01-01"), 7, "baseline: end: must be after start"),
        (MINIMAL.replace("name: meters", "name: ../meters"), 2, "model.name: String should match pattern"),
        (MINIMAL + "budget:\n  page: {false_alarms: 0, per: 90d}\n", 13, "budget.page.false_alarms: Input should be"),
    ],
)
def test_a_mistake_is_named_with_its_line(write, text, line, message):
    path = write(text)
    assert f"{path}:{line}: {message}" in refused(path)


def test_all_mistakes_at_once(write):
    message = refused(write(MINIMAL + "window:\n  every: soon\n  min_rows: 0\nextra: 1\n"))
    assert len(message.splitlines()) == 3


@pytest.mark.parametrize("text", ["", "just text\n", "- a\n- list\n"])
def test_not_a_mapping(write, text):
    path = write(text)
    assert refused(path) == f"{path}:1: the configuration must be a mapping, see configs/flights.yaml"


@pytest.mark.parametrize("text", ["a: [1, 2\nb: 3\n", "a: b: c\n", "\tname: x\n", "!!python/object:os.system {}\n"])
def test_invalid_yaml(write, text):
    path = write(text)
    assert refused(path).startswith(f"{path}:")
    assert "not valid YAML" in refused(path)


class TestEnvironment:
    URI = "sqlite:///mlflow.db"

    def load(self, write, value):
        return configuration.load(write(MINIMAL.replace(self.URI, value))).mlflow.tracking_uri

    def test_value(self, write, monkeypatch):
        monkeypatch.setenv("WHYDRIFT_HOST", "mlflow.example")
        assert self.load(write, "https://${WHYDRIFT_HOST}:5000") == "https://mlflow.example:5000"

    def test_default(self, write, monkeypatch):
        monkeypatch.delenv("WHYDRIFT_HOST", raising=False)
        assert self.load(write, "https://${WHYDRIFT_HOST:-localhost}") == "https://localhost"
        monkeypatch.setenv("WHYDRIFT_HOST", "")
        assert self.load(write, "https://${WHYDRIFT_HOST:-localhost}") == "https://localhost"

    def test_unset(self, write, monkeypatch):
        monkeypatch.delenv("WHYDRIFT_HOST", raising=False)
        path = write(MINIMAL.replace(self.URI, "https://${WHYDRIFT_HOST}"))
        message = f"{path}:4: mlflow.tracking_uri: environment variable WHYDRIFT_HOST is not set"
        assert refused(path).startswith(message)

    def test_in_a_list(self, write, monkeypatch):
        monkeypatch.delenv("WHYDRIFT_SLICE", raising=False)
        path = write(MINIMAL + "slices:\n  - site\n  - ${WHYDRIFT_SLICE}\n")
        assert f"{path}:14: slices.1: environment variable WHYDRIFT_SLICE" in refused(path)

    def test_a_value_is_not_read_as_yaml(self, write, monkeypatch):
        monkeypatch.setenv("WHYDRIFT_HOST", "x\nextra: 1")
        assert self.load(write, "${WHYDRIFT_HOST}") == "x\nextra: 1"


@pytest.mark.parametrize(
    ("mature_after", "every", "lag"), [("2d", "1d", 2), ("36h", "1d", 2), ("1h", "1d", 1), ("2d", "1h", 48)]
)
def test_label_lag_is_in_windows_and_rounded_up(write, mature_after, every, lag):
    text = changed(labels={"path": "labels", "mature_after": mature_after}, window={"every": every})
    assert configuration.load(write(text)).label_lag == lag


@pytest.mark.parametrize("every", ["15m", "1h", "6h", "1d", "2d", "1w"])
def test_widths_that_fit_the_calendar(write, every):
    baseline = {"start": "2024-01-04", "end": "2024-02-15"}  # Thursdays an even number of days after the epoch
    config = configuration.load(write(changed(window={"every": every}, baseline=baseline)))
    assert json.loads(config.model_dump_json())["window"]["every"] == every


def test_spark_explains_in_the_environment_of_its_executors(write):
    message = refused(write(changed(engine="spark", explainer={"environment": "model"})))
    assert "engine: Spark's executors explain in their own environment" in message
    assert configuration.load(write(changed(engine="spark"))).engine == "spark"


class TestDigest:
    def digest(self, write, **sections):
        return configuration.load(write(changed(**sections))).digest()

    @pytest.mark.parametrize(
        "sections",
        [
            {"store": "elsewhere"},
            {"outputs": "s3://elsewhere"},
            {"mlflow": {"tracking_uri": "https://me:secret@mlflow.example"}},
            {"inference_log": {"path": "elsewhere"}},
            {"job": {"owner": "somebody"}},
            {"window": {"every": "24h"}},
            {"model": {"alias": "champion"}},
            {"engine": "spark"},
        ],
    )
    def test_places_and_spellings_do_not_count(self, write, sections):
        assert self.digest(write, **sections) == self.digest(write)

    @pytest.mark.parametrize(
        "sections",
        [
            {"window": {"min_rows": 7}},
            {"slices": ["site"]},
            {"inference_log": {"format": "csv"}},
            {"labels": {"path": "labels"}},
            {"budget": {"page": {"false_alarms": 2, "per": "90d"}}},
            {"baseline": {"start": "2023-12-01"}},
        ],
    )
    def test_what_shapes_a_verdict_does(self, write, sections):
        assert self.digest(write, **sections) != self.digest(write)

    def test_the_folder_of_the_file_does_not_count(self, tmp_path):
        digests = set()
        for name in ("a", "b"):
            (tmp_path / name).mkdir()
            path = tmp_path / name / "meters.yaml"
            path.write_text(changed(labels={"path": "labels"}))
            digests.add(configuration.load(path).digest())
        assert len(digests) == 1


class TestCommittedFiles:
    def test_config_schema_is_current(self):
        assert (ROOT / "configs" / "schema.json").read_text() == configuration.json_schema()

    def test_verdict_schema_is_current(self):
        assert (ROOT / "configs" / "verdict.schema.json").read_text() == verdict_json.json_schema()

    @pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda p: p.name)
    def test_examples_are_valid(self, path):
        assert configuration.load(path).model.name
