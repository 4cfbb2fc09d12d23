"""What Spark costs: `whydrift profile` of one window in one process, on local[2], and on a master with two workers.

    python benchmarks/attributions/spark.py [--rows 100000 1000000] [--runs 3]

The window, the model and the baseline are those of `growth.py`, in eight files; `explained` is what the configuration
asks for. Seconds are those of the whole process from the command line to the stored summary, a JVM's start included;
master and workers of the standalone cluster run already, with one core each. All three share one machine of two cores,
so that Spark has nothing to win here: what it takes beyond `local` is its overhead. The stored bytes are compared in
every run. Median of the runs, which take turns; table: `spark.csv`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from pathlib import Path

import growth
import pandas as pd
import yaml

sys.path.append(str(Path(__file__).parents[2] / "tests" / "helpers"))
import spark_cluster

HERE = Path(__file__).parent
WORK = HERE.parents[1] / ".cache" / "spark"
ROWS, FILES, WIDTH = (100_000, 1_000_000), 8, 8
FEATURES, SLICES = 50, 10
BIN = Path(sys.executable).parent


def configure(folder: Path, names: list[str], explained: str) -> None:
    """The configurations of both engines, and the baseline that they share."""
    content = yaml.safe_load(growth.configure(folder, names, SLICES, explained).read_text())
    content["store"] = "store"
    for engine in ("local", "spark"):
        (folder / f"{engine}.yaml").write_text(yaml.safe_dump({**content, "engine": engine}))


def run(folder: Path, where: str, url: str) -> tuple[float, bytes]:
    """Profile a day, and give the seconds and what is stored."""
    store = folder / "store"
    shutil.rmtree(store, ignore_errors=True)
    engine = "local" if where == "local" else "spark"
    command = growth.profile(folder / f"{engine}.yaml")
    if engine == "spark":
        master = "local[2]" if where == "local[2]" else url
        options = ["spark.ui.enabled=false", f"spark.sql.shuffle.partitions={WIDTH}"]
        options += ["spark.driver.host=127.0.0.1", "spark.driver.bindAddress=127.0.0.1", "spark.executor.memory=1g"]
        submit = [str(BIN / "spark-submit"), "--master", master, *(w for o in options for w in ("--conf", o))]
        command = [*submit, str(BIN / "whydrift-spark.py"), *command[1:]]
    seconds = growth.measure(command)["seconds"]
    (stored,) = store.rglob("summary.parquet")
    return seconds, stored.read_bytes()


def main() -> None:
    """Measure every case and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=ROWS)
    parser.add_argument("--runs", type=int, default=3)
    asked = parser.parse_args()
    os.environ.update(spark_cluster.ENVIRONMENT)
    table: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as folder, spark_cluster.start(Path(folder)) as cluster:
        for rows in asked.rows:
            home = WORK / str(rows)  # of its own, because MLflow holds on to a database that was open
            shutil.rmtree(home, ignore_errors=True)
            home.mkdir(parents=True)
            model, names = growth.register(home, FEATURES)
            growth.FILE = -(-rows // FILES)
            for day in growth.DAYS:
                growth.write_log(home, day, rows, model, names)
            for explained in ("auto", "all"):
                configure(home, names, explained)
                found: dict[str, list[float]] = {"local": [], "local[2]": [], "standalone": []}
                for _ in range(asked.runs):
                    stored = set()
                    for where, seconds in found.items():
                        took, data = run(home, where, cluster.url)
                        seconds.append(took)
                        stored.add(data)
                    assert len(stored) == 1, "the engines disagree"
                for where, seconds in found.items():
                    median = pd.Series(seconds).median()
                    table.append({"rows": rows, "explained": explained, "where": where, "seconds": round(median, 1)})
                    print(table[-1], flush=True)
                pd.DataFrame(table).to_csv(HERE / "spark.csv", index=False)
            shutil.rmtree(home)


if __name__ == "__main__":
    main()
