"""Does one thing in a real Airflow and writes what came of it as JSON: a process of its own keeps Airflow's imports,
warnings and database out of the test process.

    python airflow_probe.py OUT parse                   parse the bundle
    python airflow_probe.py OUT run 'DAG_ID|DATE|CONF' …  make the database, then `dag.test()` for each
"""

from __future__ import annotations

import json
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any

HEAVY = {"mlflow", "shap", "evidently", "pandas", "numpy", "sklearn", "xgboost", "matplotlib", "whydrift"}


def _bag() -> Any:
    from airflow.configuration import conf
    from airflow.dag_processing.dagbag import DagBag

    folder = conf.get("core", "dags_folder")
    sys.path.append(folder)  # as Airflow's processor and workers do with the root of a bundle
    return DagBag(folder, bundle_path=Path(folder), bundle_name="dags-folder")


def parse() -> Any:
    import airflow.dag_processing.dagbag  # noqa: F401  its import is Airflow's own time, not the bundle's

    begin = time.monotonic()
    bag = _bag()
    seconds = time.monotonic() - begin
    return {
        "errors": bag.import_errors,
        "seconds": seconds,
        "heavy": sorted(HEAVY & set(sys.modules)),
        "dags": {dag.dag_id: _describe(dag) for dag in bag.dags.values()},
    }


def _describe(dag: Any) -> dict[str, Any]:
    return {
        "tags": sorted(dag.tags),
        "doc": dag.doc_md,
        "timetable": repr(dag.timetable),
        "catchup": dag.catchup,
        "max_active_runs": dag.max_active_runs,
        "tasks": {
            task.task_id: {
                "owner": task.owner,
                "retries": task.retries,
                "timeout": task.execution_timeout and task.execution_timeout.total_seconds(),
                "downstream": sorted(task.downstream_task_ids),
                "outlets": [outlet.uri for outlet in task.outlets],
            }
            for task in dag.tasks
        },
    }


def run(jobs: list[str]) -> Any:
    from airflow.models.asset import AssetEvent
    from airflow.utils.db import initdb
    from airflow.utils.session import create_session
    from sqlalchemy import select

    initdb()
    bag = _bag()
    done = []
    for job in jobs:
        dag_id, date, conf = job.split("|")
        run = bag.dags[dag_id].test(
            logical_date=datetime.fromisoformat(date) if date else None, run_conf=json.loads(conf) if conf else None
        )
        done.append({"state": run.state, "tasks": {ti.task_id: ti.state for ti in run.get_task_instances()}})
    with create_session() as session:
        events = [event.extra for event in session.scalars(select(AssetEvent))]
    return {"runs": done, "events": events}


if __name__ == "__main__":
    out, what, *rest = sys.argv[1:]
    Path(out).write_text(json.dumps(parse() if what == "parse" else run(rest)))
