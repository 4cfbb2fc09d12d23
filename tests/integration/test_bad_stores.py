"""What the command line does when a store or MLflow fails it: the message, the exit code, and what was kept."""

from __future__ import annotations

import shutil
import socket
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from judging import DAY, FIRST, fails


class TestStores:
    def test_mlflow_unreachable(self, project):
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            port = listener.getsockname()[1]
        project.configure(mlflow={"tracking_uri": f"http://me:hunter2@127.0.0.1:{port}"})
        before = datetime.now(UTC)
        result = project.window("run", FIRST)
        assert datetime.now(UTC) - before < timedelta(seconds=20)
        fails(result, 3, "StoreError", f"MLflow at http://127.0.0.1:{port} could not find meters@champion")
        assert "hunter2" not in result.err

    @pytest.mark.parametrize("uri", ["postgresql+none://me:hunter2@127.0.0.1/x", "nothing://me:hunter2@127.0.0.1/x"])
    def test_no_driver_for_the_tracking_uri(self, project, uri):
        project.configure(mlflow={"tracking_uri": uri})
        result = project.window("run", FIRST)
        fails(result, 3, "StoreError", "could not connect")
        assert "hunter2" not in result.err

    def test_password_is_not_shown_where_the_model_is_absent(self, project, monkeypatch):
        """The message for an absent model names the server."""
        from whydrift.pipelines.registry import Registry

        registry = Registry(project.tracking_uri)
        monkeypatch.setattr(registry, "_uri", "https://me:hunter2@mlflow.example")
        with pytest.raises(Exception, match=r"https://mlflow\.example has no model nobody@champion") as error:
            registry.resolve("nobody", "champion")
        assert "hunter2" not in str(error.value)

    def test_store_is_a_file(self, project):
        project.store.write_text("not a folder")
        fails(project.window("run", FIRST), 3, "StoreError", str(project.store), "cannot be written")
        assert project.active_runs(FIRST) == []

    def test_outputs_is_a_file(self, project):
        (project.folder / "outputs").write_text("not a folder")
        fails(project.window("run", FIRST), 3, "StoreError", "outputs", "cannot be written")
        assert project.verdict(FIRST)["status"] == "ok"

    def test_corrupt_summary(self, project):
        assert project.window("run", FIRST).code == 0
        (path,) = project.store.rglob("summary.parquet")
        path.write_bytes(path.read_bytes()[:-20])
        result = project.window("assess", FIRST)
        fails(result, 3, "StoreError", str(path), "delete it and run the window again")
        assert project.window("run", FIRST).code == 0

    def test_summary_of_another_kind(self, project):
        assert project.window("run", FIRST).code == 0
        (path,) = project.store.rglob("outcomes.parquet")
        pq.write_table(pa.table({"x": [1]}), path)
        fails(project.window("assess", FIRST), 3, "StoreError", str(path), "run the window again")

    def test_corrupt_verdict(self, project):
        assert project.window("run", FIRST).code == 0
        (path,) = project.store.rglob("verdict.json")
        path.write_text(path.read_text()[:-200])
        fails(project.run("report"), 3, "StoreError", str(path), "delete it and run the window again")
        assert project.window("run", FIRST).code == 0

    def test_report_cannot_be_written(self, project):
        assert project.window("run", FIRST).code == 0
        result = project.run("report", "--output", str(project.folder / "no" / "report.txt"))
        fails(result, 3, "StoreError", "report.txt cannot be written")

    @pytest.mark.slow
    def test_two_runs_of_a_window_at_once(self, project):
        assert project.window("run", FIRST).code == 0
        expected = project.tree()
        shutil.rmtree(project.store)
        options = ["--start", f"{FIRST:%F}", "--end", f"{FIRST + DAY:%F}"]
        both = [project.process("run", *options) for _ in range(2)]
        for process in both:
            out, err = process.communicate(timeout=120)
            assert (process.returncode, "OK  meters v1" in out) == (0, True), err
            assert "Traceback" not in err
        assert project.tree() == expected
        assert len(project.active_runs(FIRST)) == 1
