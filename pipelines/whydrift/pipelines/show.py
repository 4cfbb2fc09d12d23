"""Stage `report`: a stored verdict as text, JSON or a page; or the path of Evidently's view of the same rows."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import numpy as np
import pandas as pd

from whydrift.monitors.hashing import hash64
from whydrift.monitors.interactions import compare_interactions
from whydrift.monitors.verdict import Verdict
from whydrift.pipelines.errors import ConfigError, NoDataError
from whydrift.pipelines.explainers.case import Case
from whydrift.pipelines.explainers.columns import Columns
from whydrift.pipelines.explainers.interactions import explain_interactions, most_rows
from whydrift.pipelines.job import Job
from whydrift.pipelines.outputs import evidently_view, interactions_view, report
from whydrift.pipelines.outputs.wording import mute_sentence, sample_sentences
from whydrift.pipelines.publish import history, report_path, write_file, write_report
from whydrift.pipelines.verdict_json import to_json
from whydrift.pipelines.window import Window

_SAMPLE = 2000  # rows of the window in a view; the other side is the baseline's golden sample
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
    if form == "interactions":
        return str(_write_interactions(job, verdict))
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
    rows = _some_rows(job, verdict, _SAMPLE)
    current = pd.DataFrame(
        job.summariser.explainer.explain(rows).values, columns=[f"shap__{name}" for name in rows.columns]
    )
    before = pd.DataFrame(job.baseline.golden.values, columns=current.columns)
    return evidently_view.render(before, current, report_link=link)


def _write_interactions(job: Job, verdict: Verdict) -> Path:
    """Write the pairs whose joint effect moved beside the report, and the report again with a link to them."""
    config, features = job.config, list(job.summariser.log.features)
    if config.explainer.environment == "model":
        raise ConfigError("the interactions format needs the model in this process: explainer.environment: inherit")
    background = job.baseline.background
    native = job.registry.load(job.version).native
    model = getattr(native, "best_estimator_", native)
    case = Case(model, config.model.task, Columns.of(background, features), background, "path_dependent", _SAMPLE)
    rows = _some_rows(job, verdict, min(_SAMPLE, most_rows(case)))
    before = job.baseline.golden.features.head(most_rows(case))
    found = compare_interactions(explain_interactions(case, rows), explain_interactions(case, before), features)
    path = report_path(job, verdict).with_suffix(".interactions.html")
    write_file(path, interactions_view.render(found, verdict, report_link=report_path(job, verdict).name).encode())
    write_report(job, verdict, history(job, verdict))
    return path


def _some_rows(job: Job, verdict: Verdict, count: int) -> pd.DataFrame:
    """Rows of the window's log, those whose ids hash lowest, with the features alone; all others are forgotten."""
    log = job.summariser.log
    kept, hashes = pd.DataFrame(columns=[*log.features]), np.zeros(0, dtype=np.uint64)
    for batch in log.batches(Window(verdict.key.start, verdict.key.end)):
        hashes = np.concatenate([hashes, hash64(batch.frame["event_id"])])
        kept = pd.concat([part for part in (kept, batch.frame[[*log.features]]) if len(part)] or [kept])
        lowest = np.argsort(hashes, kind="stable")[:count]
        kept, hashes = kept.iloc[lowest], hashes[lowest]
    if kept.empty:
        raise NoDataError(f"{job.config.inference_log.path} has no rows of the window any more")
    return kept.reset_index(drop=True)
