"""How `whydrift profile` grows with a window's rows, beside a plain scan and prediction of the same columns.

    python benchmarks/attributions/growth.py [--rows 100000 1000000 10000000] [--features 50] [--keep]

The window is a day's log of Parquet files of a million rows, of 50 numbers in single precision, event id, event time
and logged prediction; the model is XGBoost, 100 trees of depth 6. `profile` is the whole process from the command line
to the stored summary. `scan` is the least that anything could do: a process that reads the same columns batch by batch
and predicts the rows. Seconds and the largest resident memory are those of the processes, `cpu` is user and system
time, which a busy machine does not change. The baseline is one day of 100,000 rows, and `explainer.rows` is set so
that each window has about `EXPLAINED` rows explained: five times the floor of `auto`, a fifth of its cap. Table:
`growth.csv`.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from models import FEATURES, draw

HERE = Path(__file__).parent
WORK = HERE.parents[1] / ".cache" / "growth"
ROWS = (100_000, 1_000_000, 10_000_000)
FILE, DRAWN, REFERENCE, EXPLAINED = 1_000_000, 200_000, 100_000, 10_000
DAYS = pd.date_range("2024-01-01", periods=4, tz="UTC")
SCAN = """
import sys, pathlib, numpy as np, pyarrow.parquet as pq, xgboost
booster = xgboost.Booster(model_file=sys.argv[1])
names, kept = sys.argv[3].split(","), ["event_id", "event_time", "prediction"]
total = 0.0
for path in sorted(pathlib.Path(sys.argv[2]).glob("*.parquet")):
    for batch in pq.ParquetFile(path, buffer_size=2**18).iter_batches(65536, columns=[*kept, *names]):
        total += booster.inplace_predict(np.column_stack([batch[n].to_numpy() for n in names])).sum()
print(total)
"""

START = """
import json, os, sys, time
start = time.perf_counter()
child = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ)
_, status, usage = os.wait4(child, 0)
print(json.dumps([status, time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss]))
"""


def register(folder: Path) -> Path:
    """Train the model, register it, and give the path of the plain booster."""
    import mlflow
    import mlflow.xgboost
    import xgboost
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    frame, label = draw(REFERENCE, 1)
    model = xgboost.XGBClassifier(n_estimators=100, max_depth=6, n_jobs=2).fit(frame, label)
    mlflow.set_tracking_uri(uri := f"sqlite:///{folder}/mlflow.db")
    client = mlflow.MlflowClient(uri, uri)
    experiment = client.create_experiment("training", artifact_location=(folder / "artifacts").as_uri())
    signature = ModelSignature(inputs=Schema([ColSpec("double", name) for name in FEATURES]))
    with mlflow.start_run(experiment_id=experiment):
        logged = mlflow.xgboost.log_model(model, name="growth", signature=signature, pip_requirements=["xgboost"])
    version = mlflow.register_model(logged.model_uri, "growth")
    client.set_registered_model_alias("growth", "champion", version.version)
    model.get_booster().save_model(folder / "model.ubj")
    return folder / "model.ubj"


def write_log(folder: Path, day: pd.Timestamp, rows: int, model: Path) -> Path:
    """A day's log; rows are drawn once and come again with other ids, times and a little noise in each file."""
    import xgboost

    booster = xgboost.Booster(model_file=model)
    home = folder / "logs" / f"day={day:%F}"
    home.mkdir(parents=True)
    drawn = draw(DRAWN, int(day.timestamp()))[0].to_numpy(np.float32)
    rng = np.random.default_rng(0)
    for number, start in enumerate(range(0, rows, FILE)):
        size = min(FILE, rows - start)
        x = drawn[rng.integers(0, DRAWN, size)]
        x[:, :30] += rng.normal(0, 0.01, (size, 30)).astype(np.float32)
        index = np.arange(start, start + size)
        table = {
            "event_id": pa.array(np.char.add(f"{day:%m%d}-", index.astype(str))),
            "event_time": pa.array(day.to_datetime64().astype("M8[us]") + index * (86_400_000_000 // rows)),
            "prediction": pa.array(booster.inplace_predict(x).astype(np.float64)),
            **{name: pa.array(column) for name, column in zip(FEATURES, x.T, strict=True)},
        }
        pq.write_table(pa.table(table), home / f"part-{number:03d}.parquet", row_group_size=2**17)
    return home


def configure(folder: Path, rows: int) -> Path:
    """A configuration under which about `EXPLAINED` of so many rows are explained, with its baseline made."""
    asked = EXPLAINED * REFERENCE // rows
    path = folder / f"{rows}.yaml"
    content = {
        "model": {"name": "growth"},
        "mlflow": {"tracking_uri": f"sqlite:///{folder}/mlflow.db"},
        "window": {"every": "1d"},
        "inference_log": {"path": "logs", "partition": "day=%Y-%m-%d"},
        "baseline": {"start": f"{DAYS[0]:%F}", "end": f"{DAYS[1]:%F}"},
        "explainer": {"rows": asked},
        "slices": [FEATURES[40], FEATURES[41]],
        "job": {"owner": "benchmark"},
        "store": "store",
        "outputs": "outputs",
    }
    path.write_text(yaml.safe_dump(content))
    measure([whydrift(), "baseline", "--config", str(path)])
    return path


def whydrift() -> str:
    return str(Path(sys.executable).with_name("whydrift"))


def measure(command: list[str]) -> dict[str, float]:
    """A process to its end: seconds, seconds of processor time, and largest resident memory in MiB.

    A small process starts it, because a child's memory is never reported as less than that of who started it.
    """
    done = subprocess.run([sys.executable, "-S", "-c", START, *command], check=True, capture_output=True, text=True)
    status, seconds, cpu, kib = json.loads(done.stdout.splitlines()[-1])
    if status:
        raise SystemExit(f"{' '.join(command)} ended with status {status}: {done.stderr}")
    return {"seconds": round(seconds, 1), "cpu": round(cpu, 1), "mib": round(kib / 1024)}


def main() -> None:
    """Measure every size once, smallest first, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=ROWS)
    asked = parser.parse_args()
    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir(parents=True)
    model = register(WORK)
    write_log(WORK, DAYS[0], REFERENCE, model)
    table = []
    for day, rows in zip(DAYS[1:], asked.rows, strict=False):
        home, config = write_log(WORK, day, rows, model), configure(WORK, rows)
        window = ["--start", f"{day:%F}", "--end", f"{day + pd.Timedelta(days=1):%F}"]
        for what, command in (
            ("scan", [sys.executable, "-c", SCAN, str(model), str(home), ",".join(FEATURES)]),
            ("profile", [whydrift(), "profile", "--config", str(config), *window]),
        ):
            table.append({"rows": rows, "what": what, **measure(command)})
            print(table[-1], flush=True)
        shutil.rmtree(home)
        pd.DataFrame(table).to_csv(HERE / "growth.csv", index=False)
    shutil.rmtree(WORK)


if __name__ == "__main__":
    main()
