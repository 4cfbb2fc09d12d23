"""MLflow as the shell uses it: models by alias or number, baselines on the model, one run a window."""

from __future__ import annotations

import threading
import time

import numpy as np
import pandas as pd
import pytest

from whydrift.pipelines.errors import BaselineError, ModelError, StoreError
from whydrift.pipelines.registry import Registry

RUN = {
    "experiment": "whydrift/tests",
    "window": "v1/abc/20240201T000000Z_20240202T000000Z",
    "metrics": {"evidence": 1.5, "share/temp": 0.25},
    "step": 1_706_745_600,
    "artifacts": {"verdict.json": "{}\n", "report.html": "<p>fine</p>"},
}


@pytest.fixture
def registry(own_registry):
    return Registry(own_registry.tracking_uri)


@pytest.fixture
def client(own_registry):
    import mlflow

    return mlflow.MlflowClient(own_registry.tracking_uri, own_registry.tracking_uri)


def active(client, window=RUN["window"]):
    experiment = client.get_experiment_by_name(RUN["experiment"])
    return client.search_runs([experiment.experiment_id], f"tags.`whydrift.window` = '{window}'")


class TestModels:
    def test_alias_and_number_are_the_same_version(self, registry):
        champion = registry.resolve("meters", "champion")
        assert champion == registry.resolve("meters", "1")
        assert (champion.version, champion.uri) == ("1", "models:/meters/1")
        assert champion.model_id.startswith("m-")
        assert len(champion.baseline_digest) == 64

    @pytest.mark.parametrize(("name", "alias"), [("meters", "nobody"), ("meters", "7"), ("nobody", "champion")])
    def test_absent(self, registry, name, alias):
        with pytest.raises(ModelError, match=f"has no model {name}@{alias}"):
            registry.resolve(name, alias)

    def test_load(self, registry, project):
        model = registry.load(registry.resolve("meters", "champion"))
        assert model.features == {
            "hour": "number",
            "load": "number",
            "temp": "number",
            "site": "string",
            "kind": "string",
        }
        assert type(model.native).__name__ == "XGBClassifier"
        assert len(model.digest) == 64

    def test_digest_is_of_the_model_and_not_of_its_baseline(self, registry, tmp_path):
        version = registry.resolve("meters", "1")
        before = registry.load(version).digest
        (tmp_path / "new").mkdir()
        (tmp_path / "new" / "manifest.json").write_text("{}")
        registry.log_baseline(version, tmp_path / "new", "0" * 64)
        assert registry.load(version).digest == before

    def test_model_without_signature(self, registry, client):
        log_other(client, signature=None)
        with pytest.raises(ModelError, match="has no column signature"):
            registry.load(registry.resolve("other", "1"))

    def test_signature_with_a_type_that_is_not_supported(self, registry, client):
        from mlflow.models import ModelSignature
        from mlflow.types import ColSpec, Schema

        log_other(client, ModelSignature(inputs=Schema([ColSpec("double", "x"), ColSpec("datetime", "when")])))
        with pytest.raises(ModelError, match="column 'when' is of type datetime"):
            registry.load(registry.resolve("other", "1"))


class TestBaselines:
    def test_comes_back_as_it_was_stored(self, registry, tmp_path):
        version = registry.resolve("meters", "1")
        made = tmp_path / "made"
        made.mkdir()
        (made / "manifest.json").write_text('{"id": "x"}')
        registry.log_baseline(version, made, "f" * 64)
        again = registry.resolve("meters", "1")
        assert again.baseline_digest == "f" * 64
        folder = registry.fetch_baseline(again, tmp_path)
        assert (folder / "manifest.json").read_text() == '{"id": "x"}'

    def test_none(self, registry, client, tmp_path):
        client.create_model_version("meters", client.get_model_version("meters", "1").source)
        with pytest.raises(BaselineError, match="models:/meters/2 has no baseline"):
            registry.fetch_baseline(registry.resolve("meters", "2"), tmp_path)

    def test_the_same_input_makes_the_same_baseline(self, own_registry):
        """All but who approved it, which does not change the numbers."""
        first = own_registry.run("baseline").json()
        assert own_registry.run("baseline", "--approver", "somebody else").json() == first


class TestRuns:
    def test_one_complete_run(self, registry, client):
        run_id = registry.replace_run(**RUN, tags={"whydrift.status": "ok"}, model_id=None)
        (run,) = active(client)
        assert run.info.run_id == run_id
        assert run.info.status == "FINISHED"
        assert run.data.metrics == RUN["metrics"]
        assert run.data.tags["whydrift.status"] == "ok"
        assert {a.path for a in client.list_artifacts(run_id)} == set(RUN["artifacts"])
        (metric,) = client.get_metric_history(run_id, "evidence")
        assert metric.step == RUN["step"]

    def test_artifacts_lie_beside_the_database(self, registry, client, own_registry):
        registry.replace_run(**RUN, tags={}, model_id=None)
        experiment = client.get_experiment_by_name(RUN["experiment"])
        assert experiment.artifact_location == (own_registry.folder / "artifacts" / "whydrift" / "tests").as_uri()

    def test_replaces_earlier_runs_of_this_window_only(self, registry, client):
        other = {**RUN, "window": "v1/abc/20240202T000000Z_20240203T000000Z"}
        first = registry.replace_run(**RUN, tags={}, model_id=None)
        kept = registry.replace_run(**other, tags={}, model_id=None)
        second = registry.replace_run(**RUN, tags={}, model_id=None)
        assert second != first
        assert [r.info.run_id for r in active(client)] == [second]
        assert [r.info.run_id for r in active(client, other["window"])] == [kept]
        assert client.get_run(first).info.lifecycle_stage == "deleted"

    def test_what_killed_writers_left_goes_after_an_hour(self, registry, client):
        registry.replace_run(**RUN, tags={}, model_id=None)
        experiment = client.get_experiment_by_name(RUN["experiment"]).experiment_id
        now = int(time.time() * 1000)
        old = client.create_run(experiment, run_name=RUN["window"], start_time=now - 3_700_000)
        fresh = client.create_run(experiment, run_name=RUN["window"], start_time=now - 60_000)
        registry.replace_run(**RUN, tags={}, model_id=None)
        assert client.get_run(old.info.run_id).info.lifecycle_stage == "deleted"
        assert client.get_run(fresh.info.run_id).info.lifecycle_stage == "active"

    def test_a_run_that_was_never_finished_is_no_result(self, registry, client):
        registry.replace_run(**RUN, tags={}, model_id=None)
        experiment = client.get_experiment_by_name(RUN["experiment"]).experiment_id
        client.create_run(experiment, run_name=RUN["window"])  # what a killed writer leaves
        run_id = registry.replace_run(**RUN, tags={}, model_id=None)
        assert [r.info.run_id for r in active(client)] == [run_id]

    def test_metrics_hang_on_the_model_too(self, registry, client):
        version = registry.resolve("meters", "champion")
        run_id = registry.replace_run(**RUN, tags={}, model_id=version.model_id)
        logged = client.get_logged_model(version.model_id)
        assert {m.key: m.value for m in logged.metrics if m.run_id == run_id} == RUN["metrics"]

    def test_two_writers_at_once(self, own_registry, registry, client):
        """Both may find the same older run to delete; neither may fail for the other's having done so."""
        registry.replace_run(**RUN, tags={}, model_id=None)
        for _ in range(3):
            failures = []
            barrier = threading.Barrier(3)

            def write(barrier=barrier, failures=failures):
                own = Registry(own_registry.tracking_uri)
                barrier.wait()
                try:
                    own.replace_run(**RUN, tags={}, model_id=None)
                except Exception as error:  # noqa: BLE001  whatever it is, it is reported below
                    failures.append(error)

            threads = [threading.Thread(target=write) for _ in range(3)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert failures == []
            assert len(active(client)) == 1

    def test_deleting_a_deleted_run_is_no_error_of_mlflow(self, registry, client):
        """What two writers that delete the same older run rely on."""
        first = registry.replace_run(**RUN, tags={}, model_id=None)
        client.delete_run(first)
        client.delete_run(first)

    def test_deleted_experiment(self, registry, client):
        registry.replace_run(**RUN, tags={}, model_id=None)
        client.delete_experiment(client.get_experiment_by_name(RUN["experiment"]).experiment_id)
        with pytest.raises(StoreError, match="could not log the run of v1/abc"):
            registry.replace_run(**RUN, tags={}, model_id=None)


def log_other(client, signature):
    import mlflow.xgboost
    from xgboost import XGBClassifier

    rng = np.random.default_rng(0)
    model = XGBClassifier(n_estimators=1, n_jobs=1).fit(pd.DataFrame({"x": rng.normal(size=20)}), [0, 1] * 10)
    mlflow.set_tracking_uri(client.tracking_uri)
    experiment = client.get_experiment_by_name("training").experiment_id
    with mlflow.start_run(experiment_id=experiment):
        logged = mlflow.xgboost.log_model(model, name="other", signature=signature, pip_requirements=["xgboost"])
    mlflow.register_model(logged.model_uri, "other")
