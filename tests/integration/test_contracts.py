"""Reason contracts through the command line: in the verdict, on the page, and in the gate."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

DAY = datetime(2024, 2, 1, tzinfo=UTC)
EXPECTED = [
    {"share": {"feature": "hour", "min": 0.1}},
    {"share": {"group": "weather", "min": 0.05}, "slice": "site=east"},
    {"direction": {"feature": "temp", "effect": "negative"}},
    {"monotone": {"feature": "hour", "response": "increasing", "slack": 0.2}, "slice": "site=east", "tier": "ticket"},
]


@pytest.mark.slow
def test_a_window_is_held_against_every_contract(project):
    project.configure(expectations=EXPECTED)
    done = project.window("run", DAY)
    assert done.code == 0, done.err
    verdict = project.verdict(DAY)
    assert [e["passed"] for e in verdict["expectations"]] == [True] * 4
    share, group, effect, response = verdict["expectations"]
    assert share["baseline"] == pytest.approx(share["value"], rel=0.5)
    assert group["baseline"] is None  # the baseline was made before this was expected of the slice
    assert effect["value"] < -0.5
    assert 0 <= response["value"] < 0.2
    wrong = {"direction": {"feature": "temp", "effect": "positive"}, "name": "warm is worse"}
    project.configure(expectations=[*EXPECTED, wrong])
    assert project.window("assess", DAY).code == 1
    verdict = project.verdict(DAY)
    assert verdict["cause"]["kind"] == "unknown"
    assert verdict["cause"]["sentence"].startswith("warm is worse: temp has rank correlation -")
    page = next(project.folder.glob("outputs/**/*.html"), None)
    assert page is not None
    assert "Reason contracts" in page.read_text()


@pytest.mark.slow
def test_a_contract_of_a_slice_asks_for_windows_that_are_profiled_with_it(project):
    assert project.window("run", DAY).code == 0
    project.configure(expectations=EXPECTED)
    assert project.window("assess", DAY).code == 0
    share, group, *_ = project.verdict(DAY)["expectations"]
    assert share["passed"] is True
    assert group["passed"] is None
    assert "profile the window again" in group["message"]


def test_what_the_model_does_not_have_is_a_configuration_error(project):
    project.configure(expectations=[{"no_single_feature_above": 0.9, "slice": "site=south"}])
    done = project.window("profile", DAY)
    assert done.code == 2
    assert "expectations.0.slice: the baseline has no 'site=south'; it has site=east" in done.err


@pytest.mark.slow
def test_the_gate_asks_the_candidate_to_keep_them(own_registry):
    import mlflow

    uri = own_registry.tracking_uri
    mlflow.set_tracking_uri(uri)
    mlflow.set_registry_uri(uri)
    client = mlflow.MlflowClient(uri, uri)
    twin = mlflow.register_model(client.get_model_version("meters", "1").source, "meters")
    client.set_registered_model_alias("meters", "challenger", twin.version)
    period = ("--start", "2024-02-01", "--end", "2024-02-08", "--format", "json")
    for limit, code in ((0.9, 0), (0.2, 1)):
        own_registry.configure(expectations=[*EXPECTED, {"no_single_feature_above": limit}])
        done = own_registry.run("gate", *period)
        assert done.code == code, done.out
        checks = {c["name"]: c for c in done.json()["checks"] if c["name"].startswith("expectation:")}
        assert len(checks) == 5
        assert checks["expectation:share of hour at least 0.1"]["passed"] is True
        assert checks[f"expectation:no single feature above {limit}"]["passed"] is (code == 0)
