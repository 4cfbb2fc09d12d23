"""Stage `report`: a stored verdict as text, JSON or a page; or the path of Evidently's view of the same rows."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pandas as pd

from whydrift.monitors.verdict import Verdict
from whydrift.pipelines.errors import ConfigError, NoDataError
from whydrift.pipelines.job import Job
from whydrift.pipelines.outputs import evidently_view, report
from whydrift.pipelines.outputs.wording import mute_sentence, sample_sentences
from whydrift.pipelines.publish import history, report_path, write_file, write_report
from whydrift.pipelines.verdict_json import to_json
from whydrift.pipelines.window import Window

_SAMPLE = 2000  # rows of the window in Evidently's view; the other side is the baseline's golden sample
_TOP = 5


def show(job: Job, window: Window | None, form: str) -> str:
    """The stored verdict of a window, None for the newest. Raises NoDataError where there is none."""
    verdict = _stored(job, window)
    if form == "json":
        return to_json(verdict).decode()
    if form == "html":
        return report.render(verdict, history(job, verdict))
    if form == "evidently":
        return str(_write_evidently(job, verdict))
    return as_text(verdict)


def _stored(job: Job, window: Window | None) -> Verdict:
    if window is not None:
        found = job.store.read_verdict(job.key(window))
    else:
        keys = job.store.keys(job.version.name, job.version.version, job.baseline.id)
        found = next((v for k in reversed(keys) if (v := job.store.read_verdict(k)) is not None), None)
    if found is None:
        raise NoDataError(f"{job.config.store} has no verdict of {window or 'any window'}; run it first")
    return found


def as_text(verdict: Verdict) -> str:
    """What a person needs at the prompt."""
    key, budget = verdict.key, verdict.budget
    window = f"{_minute(key.start)} to {_minute(key.end)} UTC"
    lines = [
        f"{verdict.status.value.upper()}  {key.model} v{key.model_version}  {window}",
        f"  {verdict.headline}",
    ]
    if verdict.cause is not None:
        place = [f"group {verdict.cause.group}"] if verdict.cause.group else []
        place += [verdict.cause.slice] if verdict.cause.slice else []
        place += [f"class {verdict.cause.class_name}"] if verdict.cause.class_name else []
        lines += [
            f"  cause    {', '.join([verdict.cause.kind.value, *place])}",
            f"  onset    {_minute(verdict.cause.onset)} UTC",
            *(f"  ground   {ground}" for ground in verdict.cause.grounds[:_TOP]),
            f"  next     {verdict.cause.next_step}",
        ]
    moved = sorted(verdict.attribution, key=lambda f: -abs(f.share - f.baseline_share))[:_TOP]
    lines += [f"  share    {f.feature}: {f.share:.1%}, baseline {f.baseline_share:.1%}" for f in moved]
    rows = verdict.rows
    aside = ", ".join(f"{reason} {count}" for reason, count in rows.set_aside.items()) or "none"
    pages = f"{budget.pages} page(s) by evidence in {budget.windows} windows"
    evidence = "a page is open" if not (budget.armed or budget.learning) else f"evidence {budget.evidence:.1f}"
    calibrated = verdict.calibration or verdict.multiclass
    cohort = f" of {_minute(calibrated.cohort_start)}" if calibrated is not None else ""
    asked = "requested" if verdict.retraining.requested else "no"
    lines += [
        f"  rows     {rows.seen} seen, {rows.explained} explained; set aside: {aside}",
        *(f"  sample   {sentence}" for sentence in (sample_sentences(verdict.sample) if verdict.sample else ())),
        f"  labels   {rows.labelled} mature{cohort}",
        f"  budget   {evidence}, a page needs {budget.page_threshold:.0f}",
        f"  spent    {pages}, {budget.expected_false_pages:.2f} false ones expected at most",
        f"  retrain  {asked}: {verdict.retraining.reason}",
        *(f"  muted    {mute_sentence(mute)}" for mute in verdict.muted),
    ]
    return "\n".join(lines)


def _minute(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M}"


def _write_evidently(job: Job, verdict: Verdict) -> Path:
    """Write Evidently's view beside the report, and the report again with a link to it."""
    if job.config.model.classes:
        raise ConfigError("the evidently format shows one output; it is not supported for model.task multiclass")
    path = report_path(job, verdict).with_suffix(".evidently.html")
    write_file(path, _evidently(job, verdict, report_path(job, verdict).name).encode())
    write_report(job, verdict, history(job, verdict))
    return path


def _evidently(job: Job, verdict: Verdict, link: str) -> str:
    log, explainer = job.summariser.log, job.summariser.explainer
    rows = log.read(Window(verdict.key.start, verdict.key.end)).frame[list(log.features)]
    rows = rows.sample(min(len(rows), _SAMPLE), random_state=0)
    current = pd.DataFrame(explainer.explain(rows).values, columns=[f"shap__{name}" for name in rows.columns])
    before = pd.DataFrame(job.baseline.golden.values, columns=current.columns)
    return evidently_view.render(before, current, report_link=link)
