"""What exit codes mean to a retry, which window a run has, and when a window is scheduled."""

from __future__ import annotations

import json
import logging
import signal
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pendulum
import pytest

from whydrift.pipelines.config import load

CONFIG = Path(__file__).resolve().parents[2] / "configs" / "flights.yaml"
DAY = timedelta(days=1)


def _at(day: int, hour: int = 0) -> datetime:
    return datetime(2013, 5, day, hour, tzinfo=UTC)


def test_success_returns_stdout_and_logs_stderr(
    bundle: SimpleNamespace, stand_in: Any, caplog: pytest.LogCaptureFixture
) -> None:
    stand_in.answers({"profile": {"stdout": "out", "stderr": "first\nsecond"}})
    with caplog.at_level(logging.INFO):
        assert bundle.cli.whydrift("profile", "--config", "c.yaml") == (0, "out")
    assert [record.message for record in caplog.records][1:3] == ["first", "second"]


@pytest.mark.parametrize(("code", "text"), [(1, '{"status": "page"}'), (3, '{"status": "not_evaluated"}')])
def test_an_expected_code_with_a_verdict_is_a_result(
    bundle: SimpleNamespace, stand_in: Any, code: int, text: str
) -> None:
    stand_in.answers({"assess": {"code": code, "stdout": text}})
    assert bundle.cli.whydrift("assess", results=(0, 1, 3)) == (code, text)


@pytest.mark.parametrize(
    ("answer", "retried"),
    [
        ({"code": 3, "stderr": "whydrift: StoreError: no answer from MLflow"}, True),
        ({"code": 3, "stderr": "whydrift: EngineError: Spark could not start"}, True),
        ({"signal": int(signal.SIGKILL)}, True),
        ({"code": 2, "stderr": "whydrift: ConfigError: c.yaml:3: window.every"}, False),
        ({"code": 3, "stderr": "whydrift: NoDataError: nothing there"}, False),
        ({"code": 3, "stderr": "whydrift: SchemaError: StoreError: is only mentioned"}, False),
        ({"code": 3, "stderr": "whydrift: BaselineError: no baseline"}, False),
        ({"code": 1, "stderr": "Traceback (most recent call last):\nKeyError: 'x'"}, False),
        ({"code": 127}, False),
    ],
)
def test_only_what_a_retry_can_mend_is_retried(
    bundle: SimpleNamespace, stand_in: Any, answer: dict[str, Any], retried: bool
) -> None:
    stand_in.answers({"assess": answer})
    with pytest.raises(bundle.exceptions.AirflowException) as raised:
        bundle.cli.whydrift("assess", results=(0, 1, 3))
    assert isinstance(raised.value, bundle.exceptions.AirflowFailException) is not retried
    assert answer.get("stderr", "").rpartition("\n")[2] in str(raised.value)


def test_a_breach_where_none_is_expected_is_a_failure(bundle: SimpleNamespace, stand_in: Any) -> None:
    stand_in.answers({"profile": {"code": 1, "stdout": "{}"}})
    with pytest.raises(bundle.exceptions.AirflowFailException):
        bundle.cli.whydrift("profile")


def test_an_interrupted_task_takes_its_command_along(bundle: SimpleNamespace, stand_in: Any) -> None:
    """Airflow's timeout raises in the task's main thread, as the alarm does here."""
    stand_in.answers({"profile": {"sleep": 60}})

    def alarm(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, alarm)
    signal.setitimer(signal.ITIMER_REAL, 1.0)
    begin = time.monotonic()
    try:
        with pytest.raises(TimeoutError):
            bundle.cli.whydrift("profile")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert time.monotonic() - begin < 10  # the command would sleep for a minute, and _stop waits for its end


SPARK_SUBMIT = """#!{python}
import json, os, pathlib, sys
seen = {{"arguments": sys.argv[1:], "python": os.environ["PYSPARK_PYTHON"]}}
pathlib.Path({seen!r}).write_text(json.dumps(seen))
print("whydrift: StoreError: no answer from MLflow")  # as spark-submit does with all that Python writes
print("INFO ShutdownHookManager: Shutdown hook called", file=sys.stderr)
sys.exit({code})
"""


@pytest.fixture
def spark_submit(stand_in: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A stand-in for `spark-submit` that ends with a code; gives what it was asked."""
    monkeypatch.setenv("WHYDRIFT_SPARK_SUBMIT", "spark-submit --master 'spark://a b:7077'")
    monkeypatch.setenv("PATH", str(stand_in.folder))
    monkeypatch.delenv("PYSPARK_PYTHON", raising=False)

    def ends(code: int) -> Any:
        path, seen = stand_in.folder / "spark-submit", stand_in.folder / "seen.json"
        path.write_text(SPARK_SUBMIT.format(python=sys.executable, seen=str(seen), code=code))
        path.chmod(0o755)
        return lambda: json.loads(seen.read_text())

    return ends


def test_on_spark_a_window_is_profiled_by_spark_submit(
    bundle: SimpleNamespace, stand_in: Any, spark_submit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = spark_submit(0)
    monkeypatch.setattr(bundle.dags, "get_current_context", lambda: _context(_at(12), _at(13)))
    bundle.dags.profile.function("c.yaml", timedelta(hours=2), "spark")
    window = ["--start", "2013-05-12T00:00:00+00:00", "--end", "2013-05-13T00:00:00+00:00"]
    script = str(stand_in.folder / "whydrift-spark.py")
    asked = ["--master", "spark://a b:7077", script, "profile", "--config", "c.yaml", *window]
    assert seen() == {"arguments": asked, "python": str(stand_in.folder / "python")}
    assert stand_in.calls == []
    monkeypatch.setenv("PYSPARK_PYTHON", "/opt/cluster/python")
    bundle.dags.profile.function("c.yaml", timedelta(hours=2), "spark")
    assert seen()["python"] == "/opt/cluster/python"


def test_under_spark_submit_the_error_is_the_one_that_whydrift_says(
    bundle: SimpleNamespace, spark_submit: Any, caplog: pytest.LogCaptureFixture
) -> None:
    spark_submit(3)
    with (
        caplog.at_level(logging.INFO),
        pytest.raises(bundle.exceptions.AirflowException, match=r"^whydrift: StoreError") as raised,
    ):
        bundle.cli.submit("profile")
    assert not isinstance(raised.value, bundle.exceptions.AirflowFailException)
    assert "Shutdown hook called" in caplog.text


def test_a_missing_spark_submit_says_what_to_install(bundle: SimpleNamespace, stand_in: Any, spark_submit: Any) -> None:
    with pytest.raises(bundle.exceptions.AirflowFailException, match=r"needs spark-submit.*WHYDRIFT_SPARK_SUBMIT"):
        bundle.cli.submission()
    spark_submit(0)
    (stand_in.folder / "whydrift-spark.py").unlink()
    with pytest.raises(bundle.exceptions.AirflowFailException, match=r"needs \S+whydrift-spark\.py"):
        bundle.cli.submission()


def test_a_missing_command_says_what_to_set(bundle: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WHYDRIFT_CLI", "no-such-command")
    with pytest.raises(bundle.exceptions.AirflowFailException, match="WHYDRIFT_CLI"):
        bundle.cli.executable()


def test_python_is_the_one_beside_the_command(bundle: SimpleNamespace, stand_in: Any) -> None:
    assert bundle.cli.interpreter() == str(stand_in.folder / "python")
    (stand_in.folder / "python").unlink()
    with pytest.raises(bundle.exceptions.AirflowFailException, match="beside whydrift"):
        bundle.cli.interpreter()


@pytest.mark.parametrize("text", ["", "no json", "[1]", '{"headline": "no status"}'])
def test_a_result_that_lacks_what_is_needed_is_refused(bundle: SimpleNamespace, text: str) -> None:
    assert bundle.cli.parse('{"status": "ok", "more": 1}', "status")["status"] == "ok"
    with pytest.raises(bundle.exceptions.AirflowFailException, match="should be"):
        bundle.cli.parse(text, "status")


def _context(start: Any = None, end: Any = None, **params: str | None) -> dict[str, Any]:
    interval = {} if start is None else {"data_interval_start": start, "data_interval_end": end}
    return {"params": {"window_start": None, "window_end": None} | params, **interval}


def test_the_window_is_the_data_interval(bundle: SimpleNamespace) -> None:
    window = bundle.dags.current_window(_context(pendulum.datetime(2013, 5, 12), pendulum.datetime(2013, 5, 13)))
    assert window == (_at(12), _at(13))
    assert all(type(time) is datetime for time in window)


def test_parameters_win_over_the_data_interval(bundle: SimpleNamespace) -> None:
    given = {"window_start": "2013-05-01T02:00:00+02:00", "window_end": "2013-05-02T00:00:00Z"}
    assert bundle.dags.current_window(_context(_at(12), _at(13), **given)) == (_at(1), _at(2))


@pytest.mark.parametrize(
    ("context", "message"),
    [
        (_context(), "give the parameters"),
        (_context(_at(12), _at(12)), "is empty"),
        (_context(_at(12), _at(13), window_start="2013-05-12"), "give both"),
    ],
)
def test_a_run_without_a_window_fails_clearly(bundle: SimpleNamespace, context: dict[str, Any], message: str) -> None:
    with pytest.raises(bundle.exceptions.AirflowFailException, match=message):
        bundle.dags.current_window(context)


@pytest.mark.parametrize("every", ["1m", "15m", "45m", "1h", "90m", "6h", "1d", "2d", "1w", "2w"])
def test_scheduled_intervals_are_the_windows(bundle: SimpleNamespace, every: str, tmp_path: Path) -> None:
    """Oracle: Airflow's own timetable. Its newest interval is one window, on the grid that starts at the epoch."""
    from airflow.serialization.encoders import coerce_to_core_timetable
    from airflow.timetables.base import TimeRestriction

    file = tmp_path / "m.yaml"
    file.write_text(f"model: {{name: m}}\nwindow: {{every: {every}}}\njob: {{start: 2013-05-12T01:07:00}}\n")
    job = bundle.config.read(file)
    first = bundle.dags.first_window(job)
    assert job.start <= first < job.start + job.every
    timetable = coerce_to_core_timetable(bundle.dags.timetable(job.every))
    restriction = TimeRestriction(earliest=pendulum.instance(first), latest=None, catchup=False)
    interval = timetable.next_dagrun_info(last_automated_data_interval=None, restriction=restriction).data_interval
    assert interval.end - interval.start == job.every
    assert interval.start.timestamp() % job.every.total_seconds() == 0
    assert interval.end <= datetime.now(UTC) < interval.end + job.every


def test_a_window_whose_logs_are_not_complete_is_put_off(
    bundle: SimpleNamespace, stand_in: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    context = _context(start - timedelta(hours=1), start)
    monkeypatch.setattr(bundle.dags, "get_current_context", lambda: context)
    run = bundle.dags.profile.function
    with pytest.raises(bundle.exceptions.AirflowRescheduleException) as raised:
        run("c.yaml", timedelta(hours=2))
    assert raised.value.reschedule_date == start + timedelta(hours=2)
    assert stand_in.calls == []
    context |= {"data_interval_start": _at(12), "data_interval_end": _at(13)}
    run("c.yaml", timedelta(hours=2))
    assert stand_in.calls[0][0] == "profile"


def test_the_newest_of_all_requests_is_trained(bundle: SimpleNamespace) -> None:
    asset = bundle.dags.retraining_asset("a model")
    extras = [{"request": f"{day}.json", "window_end": _at(day).isoformat()} for day in (14, 16, 15)]
    context = {"params": {"request": None}, "triggering_asset_events": {}}
    with pytest.raises(bundle.exceptions.AirflowFailException, match="no retraining request"):
        bundle.dags.newest_request(context, asset)
    context["triggering_asset_events"] = {asset: [SimpleNamespace(extra=extra) for extra in [{}, *extras]]}
    assert bundle.dags.newest_request(context, asset) == "16.json"
    context["params"]["request"] = "mine.json"
    assert bundle.dags.newest_request(context, asset) == "mine.json"


def test_the_keys_a_dag_reads_agree_with_the_real_configuration(bundle: SimpleNamespace, tmp_path: Path) -> None:
    """Oracle: whydrift's own reading of the same files, the second of which has no optional key."""
    least = tmp_path / "least.yaml"
    least.write_text(
        "model: {name: m}\nmlflow: {tracking_uri: x}\ninference_log: {path: x}\nlabels: {path: x}\n"
        "baseline: {start: 2013-03-01, end: 2013-04-01}\nstore: s\noutputs: o\n"
    )
    spark = tmp_path / "spark.yaml"
    spark.write_text(least.read_text() + "engine: spark\n")
    for path in (CONFIG, least, spark):
        job, config = bundle.config.read(path), load(path)
        assert (job.model, job.every, job.start) == (config.model.name, config.window.every, config.job.start)
        assert job.engine == config.engine
        assert (job.delay, job.owner, job.retries, job.timeout) == (
            config.job.delay,
            config.job.owner,
            config.job.retries,
            config.job.timeout,
        )
        assert job.train_command == config.retraining.train_command
        assert job.candidate_alias == config.retraining.candidate_alias


def test_a_folder_without_configurations_is_a_problem(bundle: SimpleNamespace, tmp_path: Path) -> None:
    assert bundle.config.read_all(tmp_path) == (
        [],
        {"configs": f"no *.yaml in {tmp_path}: set WHYDRIFT_CONFIGS to the folder of the configurations"},
    )
