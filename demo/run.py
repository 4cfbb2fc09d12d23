"""The demo: train a model, keep a baseline, replay two months of production, and let Airflow run the incident.

Everything lands in `.demo`; a second run starts over. The steps are the commands that a user would type.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CONFIG = ROOT / "configs" / "flights.yaml"
HOME = ROOT / ".demo"
BIN = Path(sys.executable).parent
ONSET, REQUEST = "2013-05-12", "2013-05-15"

STEPS = (
    ("train the champion on January and February", [sys.executable, "demo/train.py", "--config", CONFIG]),
    ("write its inference logs and labels, March to May", [sys.executable, "demo/data.py", "--config", CONFIG]),
    ("check the configuration", [BIN / "whydrift", "validate", "--config", CONFIG]),
    ("make the baseline: 31 days of March", [BIN / "whydrift", "baseline", "--config", CONFIG]),
    (
        "backfill 61 windows: April and May",
        [BIN / "whydrift", "backfill", "--config", CONFIG, "--start", "2013-04-01", "--end", "2013-06-01"],
    ),
    (
        f"run {ONSET} and {REQUEST} through Airflow, and the retraining that they start",
        [sys.executable, "demo/airflow_run.py", "--home", HOME / "airflow", "--windows", f"{ONSET},{REQUEST}"],
    ),
)


def main() -> int:
    """Run every step; the exit code is the first that failed."""
    started = time.monotonic()
    shutil.rmtree(HOME, ignore_errors=True)
    HOME.mkdir()
    environment = {**os.environ, "PYTHONWARNINGS": "ignore", "WHYDRIFT_CLI": str(BIN / "whydrift"), "DO_NOT_TRACK": "1"}
    environment.setdefault("WHYDRIFT_CONFIGS", str(CONFIG.parent))
    days: list[str] = []
    for number, (title, command) in enumerate(STEPS, 1):
        print(f"[{number}/{len(STEPS)}] {title}", flush=True)
        begun = time.monotonic()
        log = HOME / f"step{number}.log"
        with log.open("w") as stderr:
            done = subprocess.run(
                [str(part) for part in command],
                cwd=ROOT,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                check=False,
            )
        if done.returncode != 0:
            print(done.stdout + log.read_text()[-4000:], file=sys.stderr)
            print(f"step {number} ended with exit code {done.returncode}; all it said is in {log}", file=sys.stderr)
            return done.returncode
        if "backfill" in title:
            days = done.stdout.splitlines()
        elif "Airflow" in title:
            print(_indent(done.stdout))
        print(f"      {time.monotonic() - begun:.0f} s", flush=True)
    print(_last_screen(days, environment, time.monotonic() - started))
    return 0


def _last_screen(days: list[str], environment: dict[str, str], seconds: float) -> str:
    """What the tool said about the spring, the incident, and where to look."""
    report = subprocess.run(
        [str(BIN / "whydrift"), "report", "--config", str(CONFIG), "--start", ONSET],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    requests = sorted((HOME / "outputs" / "requests" / "flights").glob("*.json"))
    raised = [json.loads(path.read_text()) for path in requests]
    return "\n".join(
        [
            "",
            "What WhyDrift said about April and May 2013",
            *(f"  {line}" for line in _changes(days)),
            "",
            "The incident of 12 May: the weather feed of Newark stops",
            _indent(report),
            "Retraining requests",
            *(f"  {r['window_start'][:10]}  {r['reason']}" for r in raised),
            "",
            "Where to look",
            f"  report    {HOME / 'outputs' / 'reports' / 'flights' / '20130512T000000Z_20130513T000000Z.html'}",
            "  pages     make up, then http://127.0.0.1:9464 and http://127.0.0.1:9464/metrics",
            f"  MLflow    .venv/bin/mlflow ui --backend-store-uri sqlite:///{HOME / 'mlflow.db'}",
            f"  logs      {HOME}/step*.log",
            f"Done in {seconds:.0f} s.",
        ]
    )


def _changes(days: list[str]) -> list[str]:
    """The windows where status or headline changed, so that sixty lines become a few."""
    told: list[str] = []
    last = ""
    for line in days:
        date, status, headline = line[:10], line[12:30].strip(), line[31:]
        said = f"{status} {headline.partition(':')[0]}"
        if said != last:
            told.append(f"{date}  {status:<7} {headline}")
            last = said
    return told


def _indent(text: str) -> str:
    return "\n".join(f"      {line}" for line in text.splitlines())


if __name__ == "__main__":
    sys.exit(main())
