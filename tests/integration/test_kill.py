"""A run that is killed at any moment and started again leaves what an undisturbed run leaves."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

DAY = timedelta(days=1)
FIRST = datetime(2024, 2, 1, tzinfo=UTC)
TRIALS = 20
PERIOD = ("--start", f"{FIRST:%F}", "--end", f"{FIRST + DAY:%F}")


@pytest.fixture
def forks(own_registry):
    """Run the first window in a fork, killed after so many seconds or never; see run_and_kill.py."""
    script = Path(__file__).with_name("run_and_kill.py")
    command = [sys.executable, "-W", "ignore", script, own_registry.config, own_registry.store]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as driver:

        def run(after="never"):
            print(f"{FIRST:%F}", f"{FIRST + DAY:%F}", after, file=driver.stdin, flush=True)
            return json.loads(driver.stdout.readline())

        yield run
        driver.stdin.close()


def moments(undisturbed):
    """Most of them while files are written, some before."""
    rng = np.random.default_rng(2024)
    changed, end = undisturbed["changed"], undisturbed["seconds"]
    return [*rng.uniform(0, changed, TRIALS // 4), *rng.uniform(changed, end, TRIALS - TRIALS // 4)]


@pytest.mark.slow
def test_killed_and_run_again(own_registry, forks):
    project = own_registry
    assert forks()["code"] == 0
    shutil.rmtree(project.store)
    undisturbed = forks()
    assert undisturbed["code"] == 0
    expected = project.tree()
    assert len(expected) == 5  # summary, outcomes, cells, arrivals, verdict

    killed, partial = 0, 0
    for trial, moment in enumerate(moments(undisturbed)):
        if trial % 3:  # each third one is killed over the results of an earlier run
            shutil.rmtree(project.store)
        killed += forks(moment)["killed"]
        left = (
            {name: data for name, data in project.tree().items() if ".writing" not in name} if trial % 3 else expected
        )
        assert left.items() <= expected.items(), f"a torn or foreign file after a kill at {moment:.3f} s"
        partial += 0 < len(left) < len(expected)
        assert forks()["code"] == 0
        assert project.tree() == expected, f"after a kill at {moment:.3f} s"
        (run,) = project.active_runs(FIRST)
        assert run.info.status == "FINISHED"
    assert killed >= TRIALS // 2
    assert partial >= 1


@pytest.mark.slow
def test_console_script_killed_and_run_again(own_registry, forks):
    project = own_registry
    undisturbed = forks()
    expected = project.tree()
    working = undisturbed["seconds"] - undisturbed["changed"]
    for share in (0.0, 0.3, 0.8):
        shutil.rmtree(project.store)
        process = project.process("run", *PERIOD)
        while not project.store.exists() and process.poll() is None:
            time.sleep(0.002)
        time.sleep(share * working)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
        assert process.returncode in {0, -signal.SIGKILL}
        assert forks()["code"] == 0
        assert project.tree() == expected
        assert len(project.active_runs(FIRST)) == 1
