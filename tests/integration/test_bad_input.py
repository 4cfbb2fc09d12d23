"""What the command line does with bad input: the message, the exit code, and what was kept."""

from __future__ import annotations

import shutil
from collections import Counter
from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from judging import DAY, FIRST, OUTCOME_COHORT, evaluate, fails, findings, judged


class TestConfiguration:
    def test_missing_file(self, commandline, tmp_path):
        result = commandline("validate", "--config", str(tmp_path / "no.yaml"))
        fails(result, 2, "ConfigError", "no.yaml: cannot read the configuration")

    def test_folder_instead_of_file(self, commandline, tmp_path):
        fails(commandline("validate", "--config", str(tmp_path)), 2, "cannot read the configuration")

    def test_not_text(self, commandline, tmp_path):
        path = tmp_path / "c.yaml"
        path.write_bytes(b"model: \xff\xfe")
        fails(commandline("validate", "--config", str(path)), 2, "cannot read the configuration")

    def test_invalid_yaml(self, project):
        project.config.write_text("model:\n  name: [meters\nstore: x\n")
        fails(project.run("validate"), 2, f"{project.config}:3: not valid YAML")

    def test_unknown_key(self, project):
        lines = project.config.read_text().splitlines()
        at = lines.index("window:") + 1
        lines.insert(at, "  evry: 1d")
        project.config.write_text("\n".join(lines))
        fails(project.run("validate"), 2, f"{project.config}:{at + 1}: window.evry: Extra inputs are not permitted")

    def test_environment_variable_unset(self, project, monkeypatch):
        monkeypatch.delenv("WHYDRIFT_TEST_URI", raising=False)
        project.configure(mlflow={"tracking_uri": "${WHYDRIFT_TEST_URI}"})
        fails(project.run("validate"), 2, "mlflow.tracking_uri: environment variable WHYDRIFT_TEST_URI is not set")


class TestModelAndBaseline:
    @pytest.mark.parametrize("model", [{"name": "nobody"}, {"alias": "nobody"}])
    def test_no_such_model_or_alias(self, project, model):
        project.configure(model=model)
        fails(project.window("run", FIRST), 3, "ModelError", "nobody", "correct the name or the alias")
        assert project.verdict(FIRST) is None

    def test_new_version_without_baseline(self, own_registry):
        promote_second_version(own_registry)
        result = own_registry.window("run", FIRST)
        fails(result, 3, "BaselineError", "models:/meters/2 has no baseline", "`whydrift baseline`")
        assert not own_registry.store.exists()

    def test_baseline_of_another_version(self, own_registry):
        client = promote_second_version(own_registry)
        digest = client.get_model_version("meters", "1").tags["whydrift.baseline"]
        client.set_model_version_tag("meters", "2", "whydrift.baseline", digest)
        fails(own_registry.window("run", FIRST), 3, "BaselineError", "models:/meters/2 was made for meters 1")

    @pytest.mark.parametrize("name", ["summaries.parquet", "background.parquet", "golden.parquet", "soundness.json"])
    def test_baseline_file_changed(self, own_registry, name):
        path = baseline_folder(own_registry) / name
        path.write_bytes(path.read_bytes() + b" ")
        fails(own_registry.window("run", FIRST), 3, "BaselineError", "not the one that was approved", name)

    def test_baseline_file_removed(self, own_registry):
        (baseline_folder(own_registry) / "golden.parquet").unlink()
        fails(own_registry.window("run", FIRST), 3, "BaselineError", "golden.parquet")

    def test_manifest_changed(self, own_registry):
        path = baseline_folder(own_registry) / "manifest.json"
        path.write_text(path.read_text().replace('"scale": ', '"scale": 2'))
        fails(own_registry.window("run", FIRST), 3, "BaselineError", "its manifest changed")

    @pytest.mark.parametrize("text", ["", "[]", "{}", '{"files": 1, "layout": {}}'])
    def test_manifest_is_none(self, own_registry, text):
        (baseline_folder(own_registry) / "manifest.json").write_text(text)
        fails(own_registry.window("run", FIRST), 3, "BaselineError", "models:/meters/1")

    def test_manifest_of_an_older_format(self, own_registry):
        path = baseline_folder(own_registry) / "manifest.json"
        path.write_text(path.read_text().replace('"schema_version": 3', '"schema_version": 2'))
        result = own_registry.window("run", FIRST)
        fails(result, 3, "BaselineError", "in another format (2, this one reads 3); make a new one with")

    def test_baseline_folder_removed(self, own_registry):
        shutil.rmtree(baseline_folder(own_registry))
        result = own_registry.window("run", FIRST)
        fails(result, 3, "models:/meters/1")

    def test_configuration_changed_since_the_baseline(self, project):
        project.configure(slices=["site", "kind"])
        result = project.window("run", FIRST)
        fails(result, 3, "BaselineError", "slices is ['site', 'kind'] now and was ['site']", "make a new one")

    def test_groups_changed_since_the_baseline(self, project):
        project.configure(groups={"weather": ["temp"]})
        result = project.window("run", FIRST)
        fails(result, 3, "BaselineError", "groups is {'weather': ['temp']} now and was", "make a new one")

    def test_slice_that_is_no_feature(self, own_registry):
        own_registry.configure(slices=["sight"])
        fails(own_registry.run("baseline"), 2, "ConfigError", "slices: 'sight' is no feature", "site")

    def test_reference_period_without_rows(self, own_registry):
        own_registry.configure(baseline={"start": "2023-01-01", "end": "2023-02-01"})
        fails(own_registry.run("baseline"), 3, "NoDataError", "2023-01-01 to 2023-02-01 has no row")


class TestWindow:
    @pytest.mark.parametrize("command", ["run", "profile"])
    def test_in_the_future(self, project, command):
        fails(project.window(command, datetime(2999, 1, 1)), 3, "NoDataError", "ends in the future")
        assert not project.store.exists()

    @pytest.mark.parametrize("command", ["run", "profile", "backfill"])
    def test_inside_the_reference_period(self, project, command):
        result = project.window(command, FIRST - DAY)
        fails(result, 2, "ConfigError", "starts before the reference period ends (2024-02-01T00:00:00Z)")
        assert not project.store.exists()

    @pytest.mark.parametrize("command", ["run", "profile", "backfill"])
    def test_off_the_grid(self, project, command):
        result = project.run(command, "--start", "2024-02-01T01:00", "--end", "2024-02-02T01:00")
        fails(result, 2, "ConfigError", "2024-02-01T01:00:00Z does not lie on a boundary")
        assert not project.store.exists()

    @pytest.mark.parametrize("command", ["run", "profile"])
    def test_of_another_width(self, project, command):
        fails(project.window(command, FIRST, days=2), 2, "ConfigError", "2 days, 0:00:00 wide", "1 day, 0:00:00")

    @pytest.mark.parametrize("command", ["run", "profile", "assess", "publish", "backfill", "gate"])
    @pytest.mark.parametrize("end", ["2024-02-01", "2024-01-31"])
    def test_empty_or_reversed(self, project, command, end):
        result = project.run(command, "--start", "2024-02-01", "--end", end)
        fails(result, 2, "ConfigError", "is not after its start")

    def test_not_a_time(self, project):
        fails(project.run("run", "--start", "yesterday", "--end", "today"), 2, "'yesterday' is not an ISO 8601 time")

    def test_end_without_start(self, project):
        fails(project.run("report", "--end", "2024-02-01"), 2, "--end needs --start")

    def test_not_profiled(self, project):
        fails(project.window("assess", FIRST), 3, "NoDataError", "has no summary", "run profile first")

    def test_not_assessed(self, project):
        assert project.window("profile", FIRST).code == 0
        fails(project.window("publish", FIRST), 3, "NoDataError", "has no verdict", "run assess first")
        assert project.active_runs(FIRST) == []

    def test_nothing_to_report(self, project):
        fails(project.run("report"), 3, "NoDataError", "has no verdict of any window")


class TestLog:
    def test_empty_window(self, project):
        shutil.rmtree(project.log_file(FIRST).parent)
        verdict = judged(project.window("run", FIRST, "--format", "json"))
        assert verdict["status"] == "insufficient_data"
        assert verdict["headline"] == "Cannot tell of this window: 0 rows could be explained, 100 are needed."
        assert verdict["rows"]["seen"] == 0
        assert project.verdict(FIRST) == verdict
        assert len(project.active_runs(FIRST)) == 1

    def test_empty_files(self, project):
        table = pq.read_table(project.log_file(FIRST))
        pq.write_table(table.slice(0, 0), project.log_file(FIRST))
        assert evaluate(project)["rows"]["seen"] == 0

    def test_absent_folder(self, project):
        shutil.rmtree(project.folder / "logs")
        fails(project.window("run", FIRST), 3, "NoDataError", "logs does not exist", "inference_log.path")
        assert not project.store.exists()

    def test_unknown_filesystem(self, project):
        project.configure(inference_log={"path": "nowhere://logs"})
        fails(project.window("run", FIRST), 3, "StoreError", "nowhere://logs", "cannot be listed")

    def test_truncated_parquet_files(self, project):
        data = project.log_file(FIRST).read_bytes()
        for i, keep in enumerate((0.0, 0.1, 0.5, 0.99), start=1):
            project.log_file(FIRST, f"part-{i}.parquet").write_bytes(data[: int(keep * len(data))])
        verdict = evaluate(project)
        assert verdict["status"] == "ticket"
        assert verdict["rows"]["set_aside"] == {"unreadable_file": 4}
        assert verdict["rows"]["explained"] == 250
        assert findings(verdict) == {("unreadable_file", None): "ticket"}

    def test_damaged_parquet_files(self, project):
        """Bytes that rotted inside are the file's fault: no retry can mend them, and other files are kept."""
        table = pq.read_table(project.log_file(FIRST))
        for codec in ("zstd", "snappy", "gzip", "none"):
            path = project.log_file(FIRST, f"{codec}.parquet")
            pq.write_table(table, path, compression=codec, use_dictionary=False)
            data = bytearray(path.read_bytes())
            data[4:2000] = bytes(1996)
            path.write_bytes(data)
        verdict = evaluate(project)
        assert verdict["rows"]["set_aside"] == {"unreadable_file": 4}
        assert verdict["rows"]["explained"] == 250

    @pytest.mark.parametrize(("form", "reason"), [("csv", "truncated_line"), ("jsonl", "malformed_line")])
    def test_file_cut_in_a_row(self, project, form, reason):
        rewrite_as(project, form, [FIRST - OUTCOME_COHORT, FIRST - DAY, FIRST])
        project.configure(labels={"format": "parquet"})
        path = project.log_file(FIRST, f"part-0.{form}")
        path.write_bytes(path.read_bytes()[:-10])
        verdict = evaluate(project)
        assert verdict["rows"]["set_aside"] == {reason: 1}
        assert (verdict["rows"]["seen"], verdict["rows"]["explained"]) == (250, 249)
        assert verdict["rows"]["labelled"] == 250

    def test_column_missing_in_one_file(self, project):
        frame = pq.read_table(project.log_file(FIRST)).to_pandas()
        extra = frame.assign(event_id="other-" + frame["event_id"]).drop(columns="temp")
        pq.write_table(pa.Table.from_pandas(extra), project.log_file(FIRST, "part-1.parquet"))
        verdict = evaluate(project)
        assert verdict["status"] == "page"
        assert verdict["rows"]["set_aside"] == {"column_missing:temp": 250}
        assert verdict["rows"]["explained"] == 250
        assert verdict["cause"]["kind"] == "data_broken"
        assert "column_missing:temp (250 rows)" in verdict["findings"][0]["message"]

    def test_feature_missing_in_all_files(self, project):
        project.edit_log(FIRST, lambda f: f.drop(columns="temp"))
        verdict = evaluate(project)
        assert verdict["status"] == "page"
        assert verdict["rows"]["explained"] == 0
        assert verdict["rows"]["set_aside"] == {"column_missing:temp": 250}

    @pytest.mark.parametrize("column", ["event_id", "event_time", "prediction"])
    def test_key_missing_in_all_files(self, project, column):
        project.edit_log(FIRST, lambda f: f.drop(columns=column))
        fails(project.window("run", FIRST), 3, "SchemaError", f"has the column '{column}'", "inference_log.columns")
        assert project.verdict(FIRST) is None

    def test_a_broken_day_does_not_stop_the_day_that_assesses_its_labels(self, project):
        project.edit_log(FIRST, lambda f: f.drop(columns="prediction"))
        assert project.window("run", FIRST).code == 3
        assert project.window("run", FIRST + DAY).code == 0
        verdict = evaluate(project, FIRST + OUTCOME_COHORT)
        assert verdict["rows"]["explained"] == 250
        assert verdict["rows"]["labelled"] == 0

    def test_bad_values_are_set_aside_row_by_row(self, project):
        """Each fault in a row of its own, counted under its own name; the other rows are kept."""
        faults = [
            ("load", "broken", "wrong_type:load"),
            ("load", "inf", "infinite:load"),
            ("temp", -np.inf, "infinite:temp"),
            ("prediction", np.nan, "bad_prediction"),
            ("prediction", 1.5, "prediction_not_a_probability"),
            ("prediction", -0.1, "prediction_not_a_probability"),
            ("event_id", None, "event_id_missing"),
            ("event_time", None, "bad_event_time"),
        ]

        def spoil(frame):
            frame["load"] = frame["load"].astype(str)
            for row, (column, value, _) in enumerate(faults):
                frame.loc[row, column] = value

        project.edit_log(FIRST, spoil)
        verdict = evaluate(project)
        assert verdict["rows"]["set_aside"] == Counter(reason for *_, reason in faults)
        assert (verdict["rows"]["seen"], verdict["rows"]["explained"]) == (250, 250 - len(faults))
        assert verdict["status"] == "ok"

    def test_numbers_in_a_string_column(self, project):
        project.edit_log(FIRST, lambda f: f.assign(site=1.0))
        verdict = evaluate(project)
        assert verdict["rows"]["set_aside"] == {"wrong_type:site": 250}
        assert verdict["status"] == "page"

    def test_all_null_feature(self, project):
        project.edit_log(FIRST, lambda f: project.answer(f.assign(temp=np.nan)))
        verdict = evaluate(project)
        assert verdict["rows"]["explained"] == 250
        assert findings(verdict)["missing_rate", "temp"] == "page"
        assert verdict["cause"]["kind"] == "data_broken"
        assert verdict["cause"]["features"] == ["temp"]

    def test_all_null_string_feature(self, project):
        project.edit_log(FIRST, lambda f: f.assign(site=None))
        verdict = evaluate(project)
        assert findings(verdict)["missing_rate", "site"] == "page"

    def test_unseen_category(self, project):
        project.edit_log(FIRST, lambda f: project.answer(f.assign(site=["mars"] * 60 + list(f["site"][60:]))))
        verdict = evaluate(project)
        assert verdict["rows"]["explained"] == 250
        assert findings(verdict)["unseen_rate", "site"] == "page"

    def test_records_delivered_twice(self, project):
        once = evaluate(project)
        pq.write_table(pq.read_table(project.log_file(FIRST)), project.log_file(FIRST, "part-1.parquet"))
        twice = evaluate(project)
        assert twice["rows"]["set_aside"] == {"duplicate": 250}
        assert twice["status"] == once["status"] == "ok"
        assert twice["attribution"] == once["attribution"]


class TestLabels:
    def test_label_without_a_record(self, project):
        table = pq.read_table(project.label_file(FIRST)).to_pandas()
        table.loc[:1, "event_id"] = ["stranger-1", "stranger-2"]
        pq.write_table(pa.Table.from_pandas(table, preserve_index=False), project.label_file(FIRST))
        verdict = evaluate(project)
        assert verdict["rows"]["set_aside"] == {"label_without_record": 2}
        assert verdict["rows"]["seen"] == 250

    def test_bad_labels(self, project):
        table = pq.read_table(project.label_file(FIRST)).to_pandas()
        table.loc[:1, "label"] = np.nan
        pq.write_table(pa.Table.from_pandas(table, preserve_index=False), project.label_file(FIRST))
        verdict = evaluate(project)
        assert verdict["rows"]["set_aside"] == {"bad_label": 2}

    def test_no_label_files_yet(self, project):
        for day in range(-2, 1):
            shutil.rmtree(project.label_file(FIRST + day * DAY).parent)
        verdict = evaluate(project)
        assert verdict["rows"]["labelled"] == 0
        assert verdict["calibration"] is None
        assert verdict["rows"]["explained"] == 250

    def test_absent_folder(self, project):
        shutil.rmtree(project.folder / "labels")
        fails(project.window("run", FIRST), 3, "NoDataError", "labels does not exist", "labels.path")

    def test_column_missing(self, project):
        table = pq.read_table(project.label_file(FIRST)).drop_columns("label")
        pq.write_table(table, project.label_file(FIRST))
        fails(project.window("run", FIRST), 3, "SchemaError", "a label file has no column 'label'", "labels.columns")


def rewrite_as(project, form, days):
    project.configure(inference_log={"format": form})
    for day in days:
        frame, path = pq.read_table(project.log_file(day)).to_pandas(), project.log_file(day, f"part-0.{form}")
        if form == "csv":
            frame.to_csv(path, index=False)
        else:
            frame.to_json(path, orient="records", lines=True, date_format="iso", date_unit="us", double_precision=15)


def promote_second_version(project):
    """Register the champion's model once more and move the alias to it."""
    import mlflow

    client = mlflow.MlflowClient(project.tracking_uri, project.tracking_uri)
    source = client.get_model_version("meters", "1").source
    version = client.create_model_version("meters", source)
    client.set_registered_model_alias("meters", "champion", version.version)
    return client


def baseline_folder(project):
    (manifest,) = (project.folder / "artifacts").rglob("whydrift/baseline/manifest.json")
    return manifest.parent
