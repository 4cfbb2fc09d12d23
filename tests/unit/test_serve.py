"""The exporter and the pages over real HTTP on the loopback address."""

from __future__ import annotations

import gzip
import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import timedelta

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from whydrift.monitors.verdict import Status
from whydrift.pipelines.config import Config
from whydrift.pipelines.errors import ConfigError
from whydrift.pipelines.outputs import job as job_status
from whydrift.pipelines.outputs.job import JobStatus
from whydrift.pipelines.serve import listen
from whydrift.pipelines.store import Store

WINDOW = "20130514T000000Z_20130515T000000Z"
JOB = JobStatus(
    model="flights",
    model_version="1",
    interval_seconds=86400.0,
    last_success=1.0,
    last_completion=2.0,
    exit_code=0,
    stage_seconds={},
)
YAML = """
model: {name: flights}
mlflow: {tracking_uri: "sqlite:///mlflow.db"}
inference_log: {path: logs}
baseline: {start: 2013-03-01, end: 2013-04-01}
store: store
outputs: outputs
"""


def configure(folder, model="flights"):
    return Config.model_validate(
        {
            "model": {"name": model},
            "mlflow": {"tracking_uri": "sqlite:///mlflow.db"},
            "inference_log": {"path": str(folder / "logs")},
            "baseline": {"start": "2013-03-01", "end": "2013-04-01"},
            "store": str(folder / "store"),
            "outputs": str(folder / "outputs"),
        }
    )


@contextmanager
def running(*configs):
    with listen(configs, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def ask(port, path, method="GET", headers=None):
    """The path goes out as it stands: no client library tidies the dots away."""
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        connection.request(method, path, headers=headers or {})
        response = connection.getresponse()
        return response.status, response.read(), response.headers


def samples(port):
    status, body, _ = ask(port, "/metrics")
    assert status == 200
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }


def status_of(found, model="flights"):
    return [
        dict(labels)["status"]
        for (name, labels), value in found.items()
        if name == "whydrift_status" and value and dict(labels)["model"] == model
    ]


def up(found, model="flights"):
    return found[("whydrift_up", (("model", model),))]


@pytest.fixture
def config(tmp_path):
    return configure(tmp_path)


@pytest.fixture
def reports(config, tmp_path):
    folder = tmp_path / "outputs" / "reports" / "flights"
    folder.mkdir(parents=True)
    (folder / f"{WINDOW}.html").write_text("<h1>why</h1>")
    (folder / f"{WINDOW}.evidently.html").write_text("<script>1</script>")
    (folder / "notes.txt").write_text("secret")
    (tmp_path / "outputs" / "secret.html").write_text("secret")
    return folder


def test_the_newest_window_is_exported(config, make_verdict):
    page = make_verdict()
    later = replace(page.key, start=page.key.end, end=page.key.end + timedelta(days=1))
    earlier = replace(page.key, start=page.key.start - timedelta(days=1), end=page.key.start)
    store = Store(config.store)
    with running(config) as port:
        assert status_of(samples(port)) == []
        assert up(samples(port)) == 1.0
        store.write_verdict(page)
        assert status_of(samples(port)) == ["page"]
        store.write_verdict(make_verdict(key=earlier, status=Status.NOT_EVALUATED))
        assert status_of(samples(port)) == ["page"], "a backfill is not news"
        store.write_verdict(make_verdict(key=later, status=Status.OK))
        assert status_of(samples(port)) == ["ok"]


def test_of_one_window_the_later_version_counts(config, make_verdict):
    page = make_verdict()
    for version, status in (("9", Status.PAGE), ("10", Status.OK)):
        Store(config.store).write_verdict(make_verdict(key=replace(page.key, model_version=version), status=status))
    with running(config) as port:
        assert status_of(samples(port)) == ["ok"]


def test_the_job_is_exported(config, tmp_path):
    job_status.write(JOB, tmp_path / "outputs")
    with running(config) as port:
        found = samples(port)
    assert found[("whydrift_job_last_success_timestamp_seconds", (("model", "flights"),))] == 1.0


def test_a_store_that_cannot_be_read_is_down_and_not_stale(config, tmp_path, make_verdict):
    other = configure(tmp_path / "other", "churn")
    key = make_verdict().key
    Store(config.store).write_verdict(make_verdict())
    Store(other.store).write_verdict(make_verdict(key=replace(key, model="churn")))
    job_status.write(JOB, tmp_path / "outputs")
    with running(config, other) as port:
        assert status_of(samples(port)) == ["page"]
        verdict = next((tmp_path / "store").rglob("verdict.json"))
        whole = verdict.read_bytes()
        verdict.write_bytes(whole[:-100])
        found = samples(port)
        assert up(found) == 0.0
        assert not any(name == "whydrift_status" and ("model", "flights") in labels for name, labels in found)
        assert ("whydrift_job_last_exit_code", (("model", "flights"),)) in found, "the job is known all the same"
        assert status_of(found, "churn") == ["page"]
        assert up(found, "churn") == 1.0
        status, body, _ = ask(port, "/")
        assert status == 200
        assert b"cannot be read" in body
        verdict.write_bytes(whole)
        assert up(samples(port)) == 1.0


def test_a_job_status_that_cannot_be_read_is_down(config, tmp_path, make_verdict):
    Store(config.store).write_verdict(make_verdict())
    (tmp_path / "outputs" / "jobs").mkdir(parents=True)
    (tmp_path / "outputs" / "jobs" / "flights.json").write_text("{")
    with running(config) as port:
        found = samples(port)
    assert up(found) == 0.0
    assert status_of(found) == ["page"]


def test_the_format_is_negotiated(config, make_verdict):
    Store(config.store).write_verdict(make_verdict())
    with running(config) as port:
        accept = {"Accept": "application/openmetrics-text; version=1.0.0", "Accept-Encoding": "gzip"}
        _, body, headers = ask(port, "/metrics", headers=accept)
        assert headers["Content-Type"].startswith("application/openmetrics-text")
        families = list(parse_openmetrics(gzip.decompress(body).decode()))
        assert {"whydrift_up", "whydrift_status"} <= {family.name for family in families}
        _, body, headers = ask(port, "/metrics")
        assert headers["Content-Type"].startswith("text/plain")


def test_scrapes_at_the_same_time_agree(config, make_verdict):
    Store(config.store).write_verdict(make_verdict())
    with running(config) as port, ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: samples(port), range(24)))
    assert all(one == found[0] for one in found)


def test_healthy(config):
    with running(config) as port:
        assert ask(port, "/-/healthy")[:2] == (200, b"ok\n")


def test_the_index_lists_windows_newest_first_and_escapes(config, reports, make_verdict):
    page = make_verdict(headline="<script>alert(1)</script> & more")
    later = replace(page.key, start=page.key.end, end=page.key.end + timedelta(days=1))
    store = Store(config.store)
    store.write_verdict(page)
    store.write_verdict(make_verdict(key=later, status=Status.OK, headline="all fine"))
    with running(config) as port:
        status, body, headers = ask(port, "/")
    text = body.decode()
    assert status == 200
    assert text.index("all fine") < text.index("alert(1)")
    assert "<script" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; more" in text
    assert f'href="/reports/flights/{WINDOW}.html"' in text
    assert "20130515T000000Z_2013" not in text, "no link to a page that was not written"
    assert headers["Content-Security-Policy"].startswith("default-src 'none';")


def test_a_report_is_served_and_cannot_run_scripts(config, reports):
    with running(config) as port:
        status, body, headers = ask(port, f"/reports/flights/{WINDOW}.html")
        assert (status, body) == (200, b"<h1>why</h1>")
        assert headers["Content-Type"] == "text/html; charset=utf-8"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "no-referrer"
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "script-src" not in policy
        _, _, headers = ask(port, f"/reports/flights/{WINDOW}.evidently.html")
        assert "script-src 'unsafe-inline'" in headers["Content-Security-Policy"]
        assert "default-src 'none'" in headers["Content-Security-Policy"]


def test_a_model_with_a_space_has_working_links(tmp_path, make_verdict):
    config = configure(tmp_path, "late flights")
    Store(config.store).write_verdict(make_verdict(key=replace(make_verdict().key, model="late flights")))
    folder = tmp_path / "outputs" / "reports" / "late flights"
    folder.mkdir(parents=True)
    (folder / f"{WINDOW}.html").write_text("here")
    with running(config) as port:
        link = f"/reports/late%20flights/{WINDOW}.html"
        assert f'href="{link}"' in ask(port, "/")[1].decode()
        assert ask(port, link)[1] == b"here"


@pytest.mark.parametrize(
    "path",
    [
        "/reports/flights/../../secret.html",
        "/reports/flights/..%2f..%2fsecret.html",
        "/reports/flights/%2e%2e/%2e%2e/secret.html",
        "/reports/flights%2f..%2f../secret.html",
        "/reports/../outputs/secret.html",
        "/reports/./secret.html",
        "/reports//secret.html",
        "/reports/flights/notes.txt",
        "/reports/flights/.html",
        "/reports/flights/out.html",
        "/reports/flights/loop.html",
        "/reports/flights/folder.html",
        "/reports/flights/absent.html",
        "/reports/flights/absent.html%00.html",
        "/reports/flights/" + "a" * 300 + ".html",
        "/reports/flights/",
        "/reports/churn/secret.html",
        "//etc/passwd",
        "/metrics/x",
        "/index.html",
    ],
)
def test_nothing_else_is_served(config, reports, tmp_path, path):
    (reports / "out.html").symlink_to(tmp_path / "outputs" / "secret.html")
    (reports / "loop.html").symlink_to(reports / "loop.html")
    (reports / "folder.html").mkdir()
    with running(config) as port:
        status, body, _ = ask(port, path)
    assert status == 404
    assert b"secret" not in body


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_pages_can_only_be_read(config, reports, method):
    with running(config) as port:
        status, _, headers = ask(port, f"/reports/flights/{WINDOW}.html", method)
        assert status == 405
        assert headers["Allow"] == "GET, HEAD"


def test_head_has_the_length_and_no_body(config, reports):
    with running(config) as port:
        status, body, headers = ask(port, f"/reports/flights/{WINDOW}.html", "HEAD")
    assert (status, body, headers["Content-Length"]) == (200, b"", "12")


def test_a_taken_port_says_what_to_do(config):
    with running(config) as port, pytest.raises(ConfigError, match=rf"127\.0\.0\.1:{port}.*--port"):
        listen([config], "127.0.0.1", port)


def test_two_configurations_of_one_model_are_refused(config):
    with pytest.raises(ConfigError, match="the same model"):
        listen([config, config], "127.0.0.1", 0)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_server_cleanly(tmp_path, number):
    (tmp_path / "flights.yaml").write_text(YAML)
    with closing(socket.create_server(("127.0.0.1", 0))) as probe:
        port = probe.getsockname()[1]
    script = (
        "import sys; from pathlib import Path\n"
        "from whydrift.pipelines.config import load\n"
        "from whydrift.pipelines.serve import serve\n"
        "serve([load(Path(sys.argv[1]))], port=int(sys.argv[2]))\n"
    )
    command = [sys.executable, "-W", "error", "-c", script, str(tmp_path / "flights.yaml"), str(port)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, env={**os.environ, "PYTHONUNBUFFERED": "1"}) as process:
        try:
            deadline = time.monotonic() + 60
            while True:
                try:
                    assert ask(port, "/-/healthy")[0] == 200
                    break
                except ConnectionError:
                    assert process.poll() is None, process.stderr.read().decode()
                    assert time.monotonic() < deadline, "the server did not start"
                    time.sleep(0.05)
            process.send_signal(number)
            _, errors = process.communicate(timeout=10)
        finally:
            process.kill()
    assert process.returncode == 0, errors.decode()
    assert errors == b""
