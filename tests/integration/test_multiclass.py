"""A model of three classes through the command line: baseline, windows, gate, and what is refused."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace

import mlflow
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import yaml

import multiclass_project as triage
from multiclass_project import CLASSES, COLUMNS, DAY, END, FEATURES, LOG_END, START
from whydrift.monitors.summary import merge
from whydrift.pipelines import config as configuration
from whydrift.pipelines.cli import main
from whydrift.pipelines.job import Job
from whydrift.pipelines.window import Window, split

STORM, STORM_ESCAPED = "storm <b>", "storm &lt;b&gt;"
CHANGE = END + 3 * DAY


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a registered model, its logs and labels, and its baseline. Read only."""
    folder = tmp_path_factory.mktemp("triage")
    model = triage.train()
    triage.register(folder, model)
    for i in range((LOG_END - START) // DAY):
        triage.write_day(folder, model, triage.make_rows(START + i * DAY))
    triage.write_config(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["whydrift", "baseline", "--config", str(folder / "config.yaml")])
        with pytest.raises(SystemExit) as ended:
            main()
    assert ended.value.code == 0
    yield SimpleNamespace(folder=folder, model=model)
    mlflow.set_registry_uri("")  # or the next file's models would be registered here


@pytest.fixture
def project(trained, tmp_path, commandline):
    """A copy of logs, labels and configuration, with a store of its own."""
    for name in ("logs", "labels"):
        shutil.copytree(trained.folder / name, tmp_path / name)
    shutil.copy(trained.folder / "config.yaml", tmp_path)

    def run(command, *options):
        return commandline(command, "--config", str(tmp_path / "config.yaml"), *options)

    def window(command, day, *options, days=1):
        return run(command, "--start", f"{day:%F}", "--end", f"{day + days * DAY:%F}", *options)

    def verdict(day):
        (path,) = (tmp_path / "store").glob(f"triage/v1/*/{day:%Y%m%d}T*/verdict.json")
        return json.loads(path.read_text())

    def tree():
        paths = [p for p in sorted((tmp_path / "store").rglob("*")) if p.is_file() and p.name != "state.json"]
        return {str(p.relative_to(tmp_path)): p.read_bytes() for p in paths}

    return SimpleNamespace(folder=tmp_path, model=trained.model, run=run, window=window, verdict=verdict, tree=tree)


def test_a_quiet_window(project):
    assert project.window("run", END).code == 0
    verdict = project.verdict(END)
    assert verdict["status"] == "ok"
    assert [c["class_name"] for c in verdict["classes"]] == CLASSES
    for one in verdict["classes"]:
        assert sorted(a["feature"] for a in one["attribution"]) == sorted(FEATURES)
        assert one["score"]["unit"] == "margin of the class"
        assert one["calibration"]["rows"] == triage.ROWS
    assert verdict["multiclass"]["rows"] == triage.ROWS
    assert verdict["soundness"]["explainer"] == "xgboost:pred_contribs"
    assert verdict["soundness"]["agreement"]["features"] > 0.8
    assert verdict["rows"]["set_aside"] == {}
    (page,) = (project.folder / "outputs").rglob("*.html")
    html = page.read_text()
    assert STORM_ESCAPED in html
    assert STORM not in html
    assert "The likeliest class" in html


def test_what_changes_for_one_class_pages_and_names_it(project):
    """The wind blows harder from a day on, but only where the model calls it a storm."""
    for i in range((LOG_END - CHANGE) // DAY):
        rows = triage.make_rows(CHANGE + i * DAY)
        storm = triage.answer(project.model, rows)[COLUMNS].to_numpy().argmax(axis=1) == 2
        triage.write_day(project.folder, project.model, rows.assign(wind=np.where(storm, 1.6, 1.0) * rows["wind"]))
    days = 6
    assert project.window("backfill", END, days=days).code == 0
    found = [project.verdict(END + i * DAY) for i in range(days)]
    assert all(v["status"] == "ok" for v in found[:3])
    page = found[-1]
    assert page["status"] == "page"
    assert page["cause"]["kind"] == "inputs_moved"
    assert page["cause"]["features"][0] == "wind"
    assert page["cause"]["class_name"] == STORM
    assert f"of wind and those of the baseline, for class {STORM}," in page["headline"]
    assert abs(pd.Timestamp(page["since"]) - CHANGE) <= DAY
    text = project.window("report", END + (days - 1) * DAY).out
    assert f"class {STORM}" in text
    html = project.window("report", END + (days - 1) * DAY, "--format", "html").out
    assert STORM_ESCAPED in html
    assert STORM not in html
    shares = {a["feature"]: a["share"] - a["baseline_share"] for a in page["attribution"]}
    assert max(shares, key=shares.get) == "wind"


def test_24_hours_are_a_day(project):
    path = project.folder / "logs" / f"day={END:%F}" / "part-0.parquet"
    frame = pq.read_table(path).to_pandas()
    frame.loc[:4, "p_busy"] += 0.2
    frame.loc[5:7, "load"] = np.nan
    frame.to_parquet(path)
    config = configuration.load(project.folder / "config.yaml")
    daily = Job.open(config).summariser
    hour = timedelta(hours=1)
    window = config.window.model_copy(update={"every": hour})
    hourly = replace(daily, log=replace(daily.log, config=config.model_copy(update={"window": window})))
    whole, hours = Window(END, END + DAY), list(split(END, END + DAY, hour))

    parts = [hourly.summarise(hourly.log.batches(one)) for one in hours]
    expected = daily.summarise(daily.log.batches(whole))
    assert merge(parts[::-1]).to_bytes() == expected.to_bytes()
    assert len({part.to_bytes() for part in parts}) == 24
    table = expected.frame()
    assert {f"phi:{name}" for name in CLASSES} <= set(table["block"])
    assert table[table["block"] == "set_aside"].set_index("name")["value"].to_dict() == {
        "predictions_do_not_sum_to_1": 5
    }
    outcomes = [hourly.outcomes(one) for one in hours]
    expected = daily.outcomes(whole)
    assert expected.table.num_rows > 0
    assert merge(outcomes).to_bytes() == expected.to_bytes()


def test_window_by_window_equals_backfill(project):
    """The state that is kept between runs holds every class."""
    assert project.window("backfill", END, days=3).code == 0
    expected = project.tree()
    shutil.rmtree(project.folder / "store")
    for i in range(3):
        assert project.window("run", END + i * DAY).code in {0, 1}
    assert project.tree() == expected


def test_an_empty_window_cannot_be_judged(project):
    shutil.rmtree(project.folder / "logs" / f"day={END:%F}")
    assert project.window("run", END).code == 3
    verdict = project.verdict(END)
    assert verdict["status"] == "insufficient_data"
    assert [c["attribution"] for c in verdict["classes"]] == [[], [], []]


def test_labels_of_no_class_are_counted(project):
    strange = 0
    for path in sorted((project.folder / "labels").glob("2024-01-3*.parquet")):
        frame = pq.read_table(path).to_pandas()
        frame.loc[:9, "label"] = "tornado"
        frame.to_parquet(path)
        strange += frame[:10]["label_time"].between(END, END + DAY, inclusive="left").sum()
    assert strange > 0
    assert project.window("run", END).code in {0, 1}
    rows = project.verdict(END)["rows"]
    assert rows["set_aside"]["label_of_no_class"] == strange
    assert rows["labelled"] == triage.ROWS - 10
    assert rows["seen"] == triage.ROWS


def test_another_order_of_the_classes_is_not_the_baselines(project):
    path = project.folder / "config.yaml"
    content = yaml.safe_load(path.read_text())
    content["model"]["classes"] = CLASSES[::-1]
    path.write_text(yaml.safe_dump(content))
    result = project.window("run", END)
    assert result.code == 3
    assert "model.classes" in result.err


def test_a_served_model_that_answers_otherwise(project):
    path = project.folder / "logs" / f"day={END:%F}" / "part-0.parquet"
    frame = pq.read_table(path).to_pandas()
    frame.assign(p_calm=frame["p_busy"], p_busy=frame["p_calm"]).to_parquet(path)
    assert project.window("run", END).code == 1
    verdict = project.verdict(END)
    assert verdict["cause"]["kind"] == "model_changed"
    assert "prediction_differs" in {f["stream"] for f in verdict["findings"]}


def test_the_gate_compares_a_candidate(project, trained):
    worse = triage.train(rounds=1)
    triage.register(trained.folder, worse, alias="challenger")
    result = project.window("gate", END, "--candidate", "challenger", "--format", "json", days=8)
    assert result.code == 1
    found = json.loads(result.out)
    checks = {check["name"]: check for check in found["checks"]}
    assert {"share_cosine", "brier_increase", "smece_increase"} <= set(checks)
    assert any(name.startswith("loss_ratio:site=") for name in checks)
    assert checks["brier_increase"]["passed"] is False
    same = triage.train(rounds=19)
    triage.register(trained.folder, same, alias="nearly")
    checks = json.loads(project.window("gate", END, "--candidate", "nearly", "--format", "json", days=8).out)
    assert all(check["passed"] for check in checks["checks"] if "loss_ratio" not in check["name"])


def test_what_is_of_one_output_is_refused(project):
    assert project.window("run", END).code == 0
    result = project.window("report", END, "--format", "evidently")
    assert result.code == 2
    assert "multiclass" in result.err
