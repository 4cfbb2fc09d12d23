"""The exporter and the pages: what Prometheus scrapes and where an alert sends the person who got it.

Everything is read when it is asked for, so there is no copy that could go stale. There is no login and no TLS: the
server binds to the loopback address unless told otherwise, and a proxy is the place for both.
"""

from __future__ import annotations

import logging
import re
import signal
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from socketserver import ThreadingMixIn
from urllib.parse import quote
from wsgiref.headers import Headers
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from jinja2 import Environment
from prometheus_client import CollectorRegistry, Metric, make_wsgi_app
from prometheus_client.registry import Collector

from whydrift.monitors.verdict import Verdict
from whydrift.pipelines.config import Config
from whydrift.pipelines.errors import ConfigError, StoreError
from whydrift.pipelines.outputs import job as job_status
from whydrift.pipelines.outputs.prometheus import availability, joined, metrics
from whydrift.pipelines.store import Store, window_name

HOST = "127.0.0.1"
PORT = 9464
_WINDOWS_SHOWN = 200
_REPORT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*\.html")
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",  # a window that is run again replaces its page
}
_CONFINED = "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
_CSP = f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; {_CONFINED}"
# Evidently's page is drawn by its own inline script; it still may not fetch or send anything.
_EVIDENTLY_CSP = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; font-src data:; "
    + _CONFINED
)

_LOG = logging.getLogger(__name__)

_INDEX = Environment(autoescape=True).from_string("""\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>WhyDrift</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1f2328; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid #d8dee4; }
.page { color: #b3261e; font-weight: 600; } .ticket { color: #8a5a00; font-weight: 600; }
</style>
</head>
<body>
<h1>WhyDrift</h1>
{% for model in models %}
<h2 id="{{ model.name }}">{{ model.name }}</h2>
{% if model.unreadable %}
<p class="page">The store of this model cannot be read. The log of this server says why.</p>
{% elif not model.windows %}
<p>No window has been evaluated yet.</p>
{% else %}
{% if model.total > model.windows|length %}
<p>The newest {{ model.windows|length }} of {{ model.total }} windows.</p>
{% endif %}
<table>
<tr><th>Window (UTC)</th><th>Version</th><th>Status</th><th>Verdict</th></tr>
{% for window in model.windows %}
<tr>
<td>{% if window.link %}<a href="{{ window.link }}">{{ window.name }}</a>{% else %}{{ window.name }}{% endif %}</td>
<td>{{ window.version }}</td><td class="{{ window.status }}">{{ window.status }}</td><td>{{ window.headline }}</td>
</tr>
{% endfor %}
</table>
{% endif %}
{% endfor %}
</body>
</html>
""")


@dataclass(frozen=True, slots=True)
class _Response:
    status: HTTPStatus
    body: bytes
    content_type: str = "text/plain; charset=utf-8"
    csp: str = _CSP


def serve(configs: Sequence[Config], host: str = HOST, port: int = PORT) -> None:
    """Answer until SIGTERM or SIGINT; requests under way are finished first. Call it from the main thread.

    Raises:
        ConfigError: if the address cannot be listened on, or two configurations name one model.
    """
    with listen(configs, host, port) as server:

        def stop(_number: int, _frame: object) -> None:
            # shutdown waits for the loop of this very thread, so it has to be called from another.
            threading.Thread(target=server.shutdown).start()

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, stop)
        _LOG.info("serving %d models on http://%s:%d/", len(configs), host, server.server_port)
        server.serve_forever(poll_interval=0.1)


def listen(configs: Sequence[Config], host: str, port: int) -> WSGIServer:
    """A server bound to the address, which port 0 leaves to the system; `serve_forever` starts it."""
    try:
        return make_server(host, port, application(configs), _Server, _Handler)
    except OSError as error:
        raise ConfigError(f"cannot listen on {host}:{port}: {error}; choose another --host or --port") from error


def application(configs: Sequence[Config]) -> WSGIApplication:
    """The WSGI application: `/`, `/metrics`, `/-/healthy` and `/reports/<model>/<window>.html`.

    Raises:
        ConfigError: if two configurations name one model.
    """
    by_name = {config.model.name: config for config in configs}
    if len(by_name) < len(configs):
        raise ConfigError("two configurations name the same model; one server shows a model once")
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Newest(configs))
    exposition = make_wsgi_app(registry)

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        if path == "/metrics":
            served: Iterable[bytes] = exposition(environ, start_response)
            return served
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            response = _Response(HTTPStatus.METHOD_NOT_ALLOWED, b"use GET\n")
        elif path == "/-/healthy":
            response = _Response(HTTPStatus.OK, b"ok\n")
        elif path == "/":
            response = _Response(HTTPStatus.OK, _index(configs), "text/html; charset=utf-8")
        else:
            response = _report(by_name, path)
        return _send(response, environ, start_response)

    return answer


class _Newest(Collector):
    """The newest verdict and the job of each model, read at every scrape."""

    def __init__(self, configs: Sequence[Config]) -> None:
        self._configs = configs

    def collect(self) -> Iterable[Metric]:
        return joined(family for config in self._configs for family in _families(config))


def _families(config: Config) -> Iterator[Metric]:
    """What can be read. A part that cannot be is left out, never answered from memory, and `whydrift_up` is 0."""
    name = config.model.name
    job, newest, up = None, None, True
    try:
        job = job_status.read(Path(config.outputs), name)
    except StoreError as error:
        _LOG.warning("job status of %s: %s", name, error)
        up = False
    try:
        newest = Store(config.store).latest(name)
    except StoreError as error:
        _LOG.warning("verdicts of %s: %s", name, error)
        up = False
    yield availability(name, up=up)
    yield from metrics(newest, job)


def _age(verdict: Verdict) -> tuple[object, ...]:
    """Orders verdicts by time; of one window that two versions answered for, the later version counts."""
    version = verdict.key.model_version
    return verdict.key.end, verdict.key.start, len(version), version  # MLflow counts versions: 9 comes before 10


def _index(configs: Sequence[Config]) -> bytes:
    return _INDEX.render(models=[_model(config) for config in configs]).encode()


def _model(config: Config) -> dict[str, object]:
    name = config.model.name
    try:
        verdicts = sorted(Store(config.store).verdicts(name), key=_age, reverse=True)
    except StoreError as error:
        _LOG.warning("verdicts of %s: %s", name, error)
        return {"name": name, "unreadable": True}
    return {
        "name": name,
        "total": len(verdicts),
        "windows": [_window(config, verdict) for verdict in verdicts[:_WINDOWS_SHOWN]],
    }


def _window(config: Config, verdict: Verdict) -> dict[str, str | None]:
    key = verdict.key
    file = f"{window_name(key.start, key.end)}.html"
    written = (_reports(config) / file).is_file()
    return {
        "name": f"{key.start:%Y-%m-%d %H:%M} to {key.end:%Y-%m-%d %H:%M}",
        "version": key.model_version,
        "status": verdict.status.value,
        "headline": verdict.headline,
        "link": f"/reports/{quote(key.model)}/{file}" if written else None,
    }


def _report(configs: dict[str, Config], path: str) -> _Response:
    """A page of a model's report folder; whatever is no plain file there does not exist."""
    missing = _Response(HTTPStatus.NOT_FOUND, b"there is no such page\n")
    match path.split("/"):
        case ["", "reports", model, file] if model in configs and _REPORT.fullmatch(file):
            folder = _reports(configs[model])
        case _:
            return missing
    try:
        found = (folder / file).resolve(strict=True)
        if found.parent != folder:  # a symbolic link that leads out
            return missing
        body = found.read_bytes()
    except (OSError, RuntimeError):  # RuntimeError: a loop of symbolic links
        return missing
    csp = _EVIDENTLY_CSP if file.endswith(".evidently.html") else _CSP
    return _Response(HTTPStatus.OK, body, "text/html; charset=utf-8", csp)


def _reports(config: Config) -> Path:
    return Path(config.outputs).resolve() / "reports" / config.model.name


def _send(response: _Response, environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
    headers = Headers(list(_HEADERS.items()))
    headers["Content-Type"] = response.content_type
    headers["Content-Length"] = str(len(response.body))
    headers["Content-Security-Policy"] = response.csp
    if response.status is HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = "GET, HEAD"
    start_response(f"{response.status.value} {response.status.phrase}", headers.items())
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [response.body]


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = False  # so that closing waits for the requests under way


class _Handler(WSGIRequestHandler):
    timeout = 10  # seconds that a silent client may hold a thread

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class names it
        _LOG.debug(format, *args)
