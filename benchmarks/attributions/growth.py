"""How `whydrift profile` grows with rows, features and slices, beside a plain scan and prediction of the same columns.

    python benchmarks/attributions/growth.py [--rounds 3] [--case ROWS FEATURES SLICES]

A window is a day's log of Parquet files of a million rows, of numbers in single precision, event id, event time and
logged prediction; the model is XGBoost, 100 trees of depth 6. The baseline is three days of the same traffic, made with
`explainer.rows: auto`. `profile` is the whole process from the command line to the stored summary. `scan` is the least
that anything could do: a process that reads the same columns batch by batch and predicts the rows, on all cores. They
take turns, and medians over the rounds are written: seconds and the largest resident memory are those of the processes,
`cpu` is user and system time. `times` is `profile`'s seconds over those of `scan`. `explained` are the window's rows
that were explained, `kib` is the size of its summary. Table: `growth.csv`.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from models import FEATURES, draw

HERE = Path(__file__).parent
TABLE = HERE / "growth.csv"
WORK = HERE.parents[1] / ".cache" / "growth"
CASES = [
    (100_000, 50, 10),
    (100_000, 400, 10),
    (1_000_000, 10, 10),
    (1_000_000, 50, 5),
    (1_000_000, 50, 10),
    (1_000_000, 50, 50),
    (10_000_000, 50, 10),
]
FILE, DRAWN, TRAINED, VALUES = 1_000_000, 200_000, 100_000, 5
DAYS = pd.date_range("2024-01-01", periods=4, tz="UTC")
FIRST_CODE = 30  # from here on a feature of `models` has `VALUES` values
KEYS = ["rows", "features", "slices", "what"]
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


def rows_of(count: int, features: int, seed: int) -> tuple[pd.DataFrame, Any]:
    """Rows of `models.draw`, of which narrower ones keep numbers and codes alike, and wider ones have noise besides."""
    frame, label = draw(count, seed)
    if features < len(FEATURES):
        return frame.iloc[:, FIRST_CODE - features // 2 :].iloc[:, :features], label
    more = [f"x{j:02d}" for j in range(len(FEATURES), features)]
    noise = np.random.default_rng(seed).standard_normal((count, len(more)), dtype=np.float32)
    return pd.concat([frame, pd.DataFrame(noise, columns=more)], axis=1), label


def register(folder: Path, features: int, trees: int = 100) -> tuple[Path, list[str]]:
    """Train the model, register it, and give the path of the plain booster and the names of the features."""
    import mlflow
    import mlflow.xgboost
    import xgboost
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    frame, label = rows_of(TRAINED, features, 1)
    model = xgboost.XGBClassifier(n_estimators=trees, max_depth=6, n_jobs=2).fit(frame, label)
    mlflow.set_tracking_uri(uri := f"sqlite:///{folder}/mlflow.db")
    client = mlflow.MlflowClient(uri, uri)
    experiment = client.create_experiment("training", artifact_location=(folder / "artifacts").as_uri())
    signature = ModelSignature(inputs=Schema([ColSpec("double", name) for name in frame]))
    with mlflow.start_run(experiment_id=experiment):
        logged = mlflow.xgboost.log_model(model, name="growth", signature=signature, pip_requirements=["xgboost"])
    version = mlflow.register_model(logged.model_uri, "growth")
    client.set_registered_model_alias("growth", "champion", version.version)
    model.get_booster().save_model(folder / "model.ubj")
    return folder / "model.ubj", list(frame)


def write_log(folder: Path, day: pd.Timestamp, rows: int, model: Path, names: list[str]) -> Path:
    """A day's log; rows are drawn once and come again with other ids, times and a little noise in each file."""
    import xgboost

    booster = xgboost.Booster(model_file=model)
    home = folder / "logs" / f"day={day:%F}"
    home.mkdir(parents=True)
    drawn = rows_of(DRAWN, len(names), int(day.timestamp()))[0].to_numpy(np.float32)
    noisy = np.flatnonzero([name < f"x{FIRST_CODE}" for name in names])
    rng = np.random.default_rng(0)
    for number, start in enumerate(range(0, rows, FILE)):
        size = min(FILE, rows - start)
        x = drawn[rng.integers(0, DRAWN, size)]
        x[:, noisy] += rng.normal(0, 0.01, (size, noisy.size)).astype(np.float32)
        index = np.arange(start, start + size)
        table = {
            "event_id": pa.array(np.char.add(f"{day:%m%d}-", index.astype(str))),
            "event_time": pa.array(day.to_datetime64().astype("M8[us]") + index * (86_400_000_000 // rows)),
            "prediction": pa.array(booster.inplace_predict(x).astype(np.float64)),
            **{name: pa.array(column) for name, column in zip(names, x.T, strict=True)},
        }
        pq.write_table(pa.table(table), home / f"part-{number:03d}.parquet", row_group_size=2**17)
    return home


def configure(folder: Path, names: list[str], slices: int, explained: str = "auto") -> Path:
    """The configuration by which so many rows are explained, with its baseline made."""
    codes = [name for name in names if f"x{FIRST_CODE}" <= name < f"x{len(FEATURES)}"]
    path = folder / f"{explained}.yaml"
    content = {
        "model": {"name": "growth"},
        "mlflow": {"tracking_uri": f"sqlite:///{folder}/mlflow.db"},
        "window": {"every": "1d"},
        "inference_log": {"path": "logs", "partition": "day=%Y-%m-%d"},
        "baseline": {"start": f"{DAYS[0]:%F}", "end": f"{DAYS[-1]:%F}"},
        "explainer": {"rows": explained},
        "slices": codes[: slices // VALUES],
        "job": {"owner": "benchmark"},
        "store": f"{explained}/store",
        "outputs": f"{explained}/outputs",
    }
    path.write_text(yaml.safe_dump(content))
    measure([whydrift(), "baseline", "--config", str(path)])
    return path


def profile(config: Path) -> list[str]:
    """The command that profiles the last day."""
    window = ["--start", f"{DAYS[-1]:%F}", "--end", f"{DAYS[-1] + pd.Timedelta(days=1):%F}"]
    return [whydrift(), "profile", "--config", str(config), *window]


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
    return {"seconds": seconds, "cpu": cpu, "mib": kib / 1024}


def read_summary(folder: Path, explained: str = "auto") -> dict[str, float]:
    """The size of the only summary that is stored, and how many of its rows were explained."""
    (path,) = (folder / explained / "store").rglob("summary.parquet")
    found = pq.read_table(path, filters=[("block", "=", "quality"), ("stat", "=", "explained")])
    return {"kib": path.stat().st_size / 1024, "explained": sum(found["hi"].to_pylist())}


def run(rows: int, features: int, slices: int, rounds: int) -> pd.DataFrame:
    """A case's measurements."""
    folder = WORK / f"{rows}-{features}-{slices}"  # of its own, because MLflow holds on to a database that was open
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    model, names = register(folder, features)
    for day in DAYS:
        home = write_log(folder, day, rows, model, names)
    config = configure(folder, names, slices)
    commands = {
        "scan": [sys.executable, "-c", SCAN, str(model), str(home), ",".join(names)],
        "profile": profile(config),
    }
    case = {"rows": rows, "features": features, "slices": slices}
    found = []
    for _ in range(rounds):
        for what, command in commands.items():
            found.append({**case, "what": what, **measure(command)})
            print(found[-1], flush=True)
        found[-1].update(read_summary(folder))
    shutil.rmtree(folder)
    return pd.DataFrame(found)


def write(found: pd.DataFrame) -> None:
    """The medians, in place of those that the table had of the same case."""
    made = found.groupby(KEYS, sort=False).median().reset_index()
    made["times"] = made["seconds"] / made["seconds"].iloc[0]
    made = made.round({"seconds": 1, "cpu": 1, "mib": 0, "kib": 0, "times": 2})
    if TABLE.exists():
        old = pd.read_csv(TABLE)
        kept = old[~old[KEYS].apply(tuple, axis=1).isin(set(made[KEYS].apply(tuple, axis=1)))]
        made = pd.concat([kept, made]).sort_values(KEYS[:3], kind="stable")
    made.to_csv(TABLE, index=False)


def main() -> None:
    """Measure every case, or one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--case", type=int, nargs=3, metavar=("ROWS", "FEATURES", "SLICES"))
    asked = parser.parse_args()
    for case in [asked.case] if asked.case else CASES:
        write(run(*case, asked.rounds))


if __name__ == "__main__":
    main()
