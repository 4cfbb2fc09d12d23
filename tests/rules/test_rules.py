"""Rules, runbooks and dashboard against the real promtool and Prometheus, and against what the code exports."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from contextlib import closing
from pathlib import Path

import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest

from whydrift.monitors.verdict import CauseKind
from whydrift.pipelines.cli import whydrift
from whydrift.pipelines.config import Config
from whydrift.pipelines.outputs import job as job_status
from whydrift.pipelines.outputs.job import JobStatus
from whydrift.pipelines.outputs.prometheus import availability, metrics
from whydrift.pipelines.serve import PORT, listen
from whydrift.pipelines.store import Store

INFRA = Path(__file__).parents[2] / "infra"
RULES = INFRA / "prometheus" / "whydrift.rules.yml"
RULE_TESTS = INFRA / "prometheus" / "whydrift.rules.test.yml"
DASHBOARD = INFRA / "grafana" / "whydrift.json"
SECTIONS = ["Meaning", "Impact", "Diagnosis", "Mitigation"]
JOB = JobStatus(
    model="flights",
    model_version="1",
    interval_seconds=86400.0,
    last_success=1.0,
    last_completion=2.0,
    exit_code=0,
    stage_seconds={"profile": 1.0},
)

ALERTS = {
    rule["alert"]: rule
    for group in yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]
    for rule in group["rules"]
}
GROUPS = {group["name"]: group for group in yaml.safe_load(RULE_TESTS.read_text(encoding="utf-8"))["tests"]}


def tool(name):
    found = shutil.which(name)
    if found is None:
        pytest.fail(f"{name} is not installed; on Debian or Ubuntu: apt-get install --no-install-recommends prometheus")
    return found


def promtool(*arguments, given=None):
    done = subprocess.run(
        [tool("promtool"), *map(str, arguments)], input=given, capture_output=True, check=False, timeout=60
    )
    assert done.returncode == 0, (done.stdout + done.stderr).decode()


@pytest.fixture
def exposition(make_verdict):
    class Families:
        def collect(self):
            yield availability("flights", up=True)
            yield from metrics(make_verdict(), JOB)

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Families())
    return generate_latest(registry)


@pytest.fixture
def exported(exposition):
    return set(re.findall(r"^(whydrift_\w+)(?:\{|\s)", exposition.decode(), re.MULTILINE))


def test_promtool_accepts_the_rules():
    promtool("check", "rules", "--lint=all", "--lint-fatal", RULES)


def test_promtool_accepts_the_configuration():
    promtool("check", "config", INFRA / "prometheus" / "prometheus.yml")


def test_every_alert_fires_when_it_should_and_only_then():
    promtool("test", "rules", RULE_TESTS)


def test_promtool_has_nothing_to_say_about_the_metrics(exposition):
    promtool("check", "metrics", given=exposition)


@pytest.mark.parametrize("alert", ALERTS)
def test_every_alert_is_tested_both_ways(alert):
    expected = [
        case["exp_alerts"]
        for group in GROUPS.values()
        for case in group["alert_rule_test"]
        if case["alertname"] == alert
    ]
    assert any(expected), "no case in which it fires"
    for name in ("a healthy model", "nothing is exported"):
        assert alert in {case["alertname"] for case in GROUPS[name]["alert_rule_test"]}
    healthy = {case["alertname"]: case["exp_alerts"] for case in GROUPS["a healthy model"]["alert_rule_test"]}
    assert healthy[alert] == []


@pytest.mark.parametrize("alert", ALERTS)
def test_the_healthy_model_exports_what_the_alert_reads(alert):
    """Else the alert would be quiet for want of data and the test would prove nothing."""
    given = {re.match(r"\w+", series["series"])[0] for series in GROUPS["a healthy model"]["input_series"]}
    read = set(re.findall(r"\b(?:whydrift_\w+|up)\b", ALERTS[alert]["expr"]))
    assert read
    assert read <= given


@pytest.mark.parametrize("alert", ALERTS)
def test_every_alert_follows_the_conventions(alert):
    rule = ALERTS[alert]
    assert alert.startswith("WhyDrift")
    assert rule["labels"].keys() == {"severity"}
    assert rule["labels"]["severity"] in {"critical", "warning", "info"}
    assert {"summary", "description", "runbook"} <= rule["annotations"].keys()
    assert "{{" not in rule["annotations"]["summary"]


@pytest.mark.parametrize("alert", ALERTS)
def test_every_alert_has_a_runbook_that_says_something(alert):
    assert ALERTS[alert]["annotations"]["runbook"] == f"infra/runbooks/{alert}.md"
    text = (INFRA / "runbooks" / f"{alert}.md").read_text(encoding="utf-8")
    title, *sections = re.split(r"^##? ", text, flags=re.MULTILINE)[1:]
    assert title.strip() == alert
    assert [section.split("\n", 1)[0] for section in sections] == SECTIONS
    assert all(len(section.split()) > 5 for section in sections)


def test_every_runbook_has_an_alert_and_its_links_lead_somewhere():
    runbooks = list((INFRA / "runbooks").glob("*.md"))
    assert {path.stem for path in runbooks} == set(ALERTS)
    for path in runbooks:
        for link in re.findall(r"\]\(([^)]+)\)", path.read_text(encoding="utf-8")):
            assert (path.parent / link).is_file(), f"{path.name} -> {link}"


def test_the_commands_in_the_runbooks_exist():
    text = "".join(path.read_text(encoding="utf-8") for path in (INFRA / "runbooks").glob("*.md"))
    commands = set(re.findall(r"`whydrift (\w+)( --[^`]+)`", text))
    assert commands
    for name, options in commands:
        known = {option for parameter in whydrift.commands[name].params for option in parameter.opts}
        assert set(re.findall(r"--[a-z-]+", options)) <= known, f"whydrift {name}{options}"


def test_the_page_runbook_explains_every_cause():
    text = (INFRA / "runbooks" / "WhyDriftPage.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^ *\| `(\w+)` \|", text, re.MULTILINE)) == set(CauseKind)


@pytest.mark.parametrize("path", [RULES, RULE_TESTS, DASHBOARD, *sorted((INFRA / "runbooks").glob("*.md"))], ids=str)
def test_every_metric_that_is_named_is_exported(path, exported):
    named = set(re.findall(r"\bwhydrift_\w+", path.read_text(encoding="utf-8")))
    assert {name for name in named if not name.endswith("_")} <= exported


def test_every_exported_metric_is_on_the_dashboard_or_in_a_rule(exported):
    shown = DASHBOARD.read_text(encoding="utf-8") + RULES.read_text(encoding="utf-8")
    known_elsewhere = {"whydrift_budget_watched_windows", "whydrift_budget_period_seconds"}  # they explain the budget
    known_elsewhere |= {"whydrift_calibration_cohort_end_timestamp_seconds"}
    assert {name for name in exported if not re.search(rf"\b{name}\b", shown)} <= known_elsewhere


def test_promtool_parses_every_query_of_the_dashboard(tmp_path):
    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    assert queries
    rules = [{"record": f"panel:query:{number}", "expr": query} for number, query in enumerate(queries)]
    path = tmp_path / "queries.yml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    promtool("check", "rules", path)


def test_the_dashboard_can_be_provisioned():
    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    assert dashboard["uid"] == "whydrift"
    assert [variable["name"] for variable in dashboard["templating"]["list"]] == ["datasource", "model"]
    sources = {part["datasource"]["uid"] for panel in dashboard["panels"] for part in (panel, *panel["targets"])}
    assert sources == {"${datasource}"}
    cells = [
        (x, y)
        for panel in dashboard["panels"]
        for place in [panel["gridPos"]]
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(cells) == len(set(cells)), "panels overlap"
    assert max(x for x, _ in cells) == 23


def test_alerts_are_routed_by_severity():
    """Without amtool here, the references inside the file are followed by hand."""
    content = yaml.safe_load((INFRA / "alertmanager" / "alertmanager.yml").read_text(encoding="utf-8"))
    receivers = {receiver["name"] for receiver in content["receivers"]}
    routes = content["route"]["routes"]
    named = {content["route"]["receiver"], *(route["receiver"] for route in routes if "receiver" in route)}
    assert named == receivers
    severities = {rule["labels"]["severity"] for rule in ALERTS.values()}
    assert {matcher for route in routes for matcher in route["matchers"]} == {f'severity="{s}"' for s in severities}
    assert content["route"]["group_by"] == ["alertname", "model"]
    inhibiting = json.dumps(content["inhibit_rules"])
    assert set(re.findall(r"WhyDrift\w+", inhibiting)) <= set(ALERTS)


def test_the_example_scrapes_the_port_that_serve_uses():
    content = yaml.safe_load((INFRA / "prometheus" / "prometheus.yml").read_text(encoding="utf-8"))
    scrape = next(job for job in content["scrape_configs"] if job["job_name"] == "whydrift")
    assert scrape["static_configs"][0]["targets"] == [f"127.0.0.1:{PORT}"]
    assert str(PORT) in (INFRA / "runbooks" / "WhyDriftExporterDown.md").read_text(encoding="utf-8")


def free_port():
    with closing(socket.create_server(("127.0.0.1", 0))) as probe:
        return probe.getsockname()[1]


def wait_for(question, seconds):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if (found := question()) is not None:
                return found
        except (ConnectionError, urllib.error.URLError):
            pass
        time.sleep(0.1)
    pytest.fail("Prometheus did not come to it in time")


@pytest.fixture
def prometheus(tmp_path):
    """A real Prometheus that scrapes the given port every second; yields a function that starts it."""
    started = []

    def start(target_port):
        content = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(RULES)],
            "scrape_configs": [{"job_name": "whydrift", "static_configs": [{"targets": [f"127.0.0.1:{target_port}"]}]}],
        }
        path = tmp_path / "prometheus.yml"
        path.write_text(yaml.safe_dump(content))
        port = free_port()
        log = (tmp_path / "prometheus.log").open("wb")
        process = subprocess.Popen(
            [
                tool("prometheus"),
                f"--config.file={path}",
                f"--storage.tsdb.path={tmp_path / 'tsdb'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        started.append((process, log))
        return port

    yield start
    for process, log in started:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        log.close()


@pytest.mark.slow
def test_a_page_in_the_store_fires_in_a_real_prometheus(prometheus, tmp_path, make_verdict):
    config = Config.model_validate(
        {
            "model": {"name": "flights"},
            "mlflow": {"tracking_uri": "sqlite:///mlflow.db"},
            "inference_log": {"path": str(tmp_path / "logs")},
            "baseline": {"start": "2013-03-01", "end": "2013-04-01"},
            "store": str(tmp_path / "store"),
            "outputs": str(tmp_path / "outputs"),
        }
    )
    job_status.write(JOB, tmp_path / "outputs")
    Store(config.store).write_verdict(make_verdict())
    with listen([config], "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            port = prometheus(server.server_port)

            def firing(alert):
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/alerts", timeout=5) as response:
                    alerts = json.load(response)["data"]["alerts"]
                return next((a for a in alerts if a["labels"]["alertname"] == alert and a["state"] == "firing"), None)

            alert = wait_for(lambda: firing("WhyDriftPage"), seconds=20)
            assert alert["labels"]["model"] == "flights"
            assert alert["labels"]["severity"] == "critical"
            assert alert["annotations"]["description"] == (
                "Model flights: data_broken since 2013-05-12 00:00 UTC."
                " temp: share of the attribution 8.2%, baseline 12.2%."
            )
            page = f"http://127.0.0.1:{server.server_port}/reports/flights/20130514T000000Z_20130515T000000Z.html"
            assert alert["annotations"]["report"] == page
        finally:
            server.shutdown()
            thread.join()
