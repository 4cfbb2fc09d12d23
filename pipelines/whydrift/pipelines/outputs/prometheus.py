"""A verdict and its job as Prometheus metrics.

Every series carries `model`. Quantities of different kinds never share a metric, times are timestamps and not
ages, and all known states are exported, so that a rule finds its series whatever happened. The number of series is
bounded by the configuration and not by the data: features are cut to the most important ones and those that a
finding names; everything else stays in the verdict's JSON.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

from prometheus_client import CollectorRegistry, write_to_textfile
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from whydrift.monitors.verdict import CauseKind, FeatureAttribution, Status, Verdict
from whydrift.pipelines.outputs.job import JobStatus

TOP_FEATURES = 20
_FILES = "unreadable_file"  # the one reason that counts files: how many rows they hold is unknown

_Samples = list[tuple[dict[str, str], float | None]]
_Row = tuple[str, str, _Samples]  # name, help, and labels with values; None gives no sample


def metrics(verdict: Verdict | None, job: JobStatus | None) -> Iterator[Metric]:
    """The metric families of one model; either half may be absent."""
    if verdict is not None:
        key = verdict.key
        info = {"model_version": key.model_version, "baseline": key.baseline_id[:16]}
        yield _info("whydrift_window", "What the newest verdict is about.", key.model, info)
        yield from _gauges(key.model, _state(verdict))
        yield from _gauges(key.model, _budget(verdict))
        yield from _gauges(key.model, _rows(verdict))
        yield from _gauges(key.model, _features(verdict))
        yield from _gauges(key.model, _calibration(verdict))
        yield from _gauges(key.model, _slices(verdict))
    if job is not None:
        info = {"model_version": job.model_version, "whydrift_version": version("whydrift")}
        yield _info("whydrift_job", "What the last run of the job ran.", job.model, info)
        yield from _gauges(job.model, _job(job))


def availability(model: str, *, up: bool) -> Metric:
    """Whether the exporter could read what the model's job wrote."""
    help_text = "1 if the store and the job status could be read at this scrape."
    return next(_gauges(model, [("whydrift_up", help_text, [({}, float(up))])]))


def joined(families: Iterable[Metric]) -> list[Metric]:
    """Families of several models as one list in which each name occurs once, as the text format demands."""
    by_name: dict[str, Metric] = {}
    for family in families:
        if family.name in by_name:
            by_name[family.name].samples.extend(family.samples)
        else:
            by_name[family.name] = family
    return list(by_name.values())


def write_textfile(path: Path, verdict: Verdict | None, job: JobStatus | None) -> None:
    """Replace a file for node_exporter's textfile collector in one step; its name must end in `.prom`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Fixed(list(metrics(verdict, job))))
    write_to_textfile(str(path), registry)


class _Fixed(Collector):
    def __init__(self, families: Sequence[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def _gauges(model: str, rows: Iterable[_Row]) -> Iterator[Metric]:
    for name, help_text, samples in rows:
        family = GaugeMetricFamily(name, help_text)
        for labels, value in samples:
            if value is not None:
                family.add_sample(name, {"model": model, **labels}, value)
        yield family


def _info(name: str, help_text: str, model: str, labels: dict[str, str]) -> Metric:
    family = InfoMetricFamily(name, help_text)
    family.add_metric([], {"model": model, **labels})
    return family


def _one(value: float | None) -> _Samples:
    return [({}, value)]


def _time(value: datetime | None) -> _Samples:
    return _one(None if value is None else value.timestamp())


def _state(verdict: Verdict) -> Iterator[_Row]:
    kind = verdict.cause.kind if verdict.cause else None
    yield (
        "whydrift_status",
        "1 for the status of the newest window, 0 for the others.",
        [({"status": status.value}, float(status is verdict.status)) for status in Status],
    )
    yield (
        "whydrift_cause",
        "1 for the named cause, 0 for the others; all 0 where none is named.",
        [({"cause": cause.value}, float(cause is kind)) for cause in CauseKind],
    )
    yield "whydrift_window_start_timestamp_seconds", "Start of the newest window.", _time(verdict.key.start)
    yield "whydrift_window_end_timestamp_seconds", "End of the newest window.", _time(verdict.key.end)
    yield (
        "whydrift_onset_timestamp_seconds",
        "When what is found began; absent without a finding.",
        _time(verdict.since),
    )
    yield (
        "whydrift_retraining_requested",
        "1 if the newest window raises a retraining request.",
        _one(float(verdict.retraining.requested)),
    )


def _budget(verdict: Verdict) -> Iterator[_Row]:
    budget = verdict.budget
    yield "whydrift_evidence", "The model-level e-detector.", _one(budget.evidence)
    yield "whydrift_evidence_page_threshold", "Evidence that makes a page.", _one(budget.page_threshold)
    yield "whydrift_evidence_ticket_threshold", "Evidence that makes a ticket.", _one(budget.ticket_threshold)
    yield "whydrift_budget_accepted_pages", "False pages that are accepted in a period.", _one(budget.false_pages)
    yield "whydrift_budget_period_seconds", "The period of the accepted false pages.", _one(budget.period_days * 86400)
    yield "whydrift_budget_watched_windows", "Windows watched under this baseline.", _one(budget.windows)
    yield "whydrift_budget_spent_pages", "Pages raised by evidence in the watched windows.", _one(budget.pages)
    yield (
        "whydrift_budget_expected_pages",
        "Upper bound of the false pages expected in the watched windows.",
        _one(budget.expected_false_pages),
    )
    yield (
        "whydrift_baseline_learning",
        "1 while the baseline has too few windows to carry a budget, so that no statistic can page.",
        _one(float(budget.learning)),
    )


def _rows(verdict: Verdict) -> Iterator[_Row]:
    rows = verdict.rows
    reasons: Counter[str] = Counter()
    for reason, count in rows.set_aside.items():
        reasons[reason.partition(":")[0]] += count  # the part after the colon is a feature, which has no bound
    files = reasons.pop(_FILES, 0)
    yield "whydrift_seen_rows", "Rows of the inference log in the newest window.", _one(rows.seen)
    yield "whydrift_explained_rows", "Rows that were explained.", _one(rows.explained)
    yield "whydrift_labelled_rows", "Rows of the mature cohort that have a label.", _one(rows.labelled)
    yield (
        "whydrift_set_aside_rows",
        "Rows that could not be used, by reason.",
        [({"reason": reason}, count) for reason, count in sorted(reasons.items())],
    )
    yield "whydrift_unreadable_files", "Files of the inference log that could not be read.", _one(files)
    yield "whydrift_missing_windows", "Watched windows that have no summary.", _one(verdict.missing_windows)


def _features(verdict: Verdict) -> Iterator[_Row]:
    shown = _shown(verdict)
    blamed = verdict.cause.features if verdict.cause else ()

    def per_feature(values: Iterable[float]) -> _Samples:
        return [({"feature": item.feature}, value) for item, value in zip(shown, values, strict=True)]

    yield (
        "whydrift_attribution_share_ratio",
        "Share of a feature in the sum of mean absolute attributions.",
        per_feature(item.share for item in shown),
    )
    yield (
        "whydrift_attribution_baseline_share_ratio",
        "The same share in the baseline.",
        per_feature(item.baseline_share for item in shown),
    )
    yield (
        "whydrift_missing_ratio",
        "Share of rows in which a feature is missing.",
        per_feature(item.missing_rate for item in shown),
    )
    yield (
        "whydrift_missing_baseline_ratio",
        "The same share in the baseline.",
        per_feature(item.baseline_missing_rate for item in shown),
    )
    yield (
        "whydrift_cause_feature",
        "1 for a feature that the named cause is about.",
        per_feature(float(item.feature in blamed) for item in shown),
    )


def _shown(verdict: Verdict) -> list[FeatureAttribution]:
    """The top features by share, and every one that a finding or the cause names."""
    ranked = sorted(verdict.attribution, key=lambda item: (-item.share, item.feature))
    named = {finding.feature for finding in verdict.findings}
    if verdict.cause:
        named.update(verdict.cause.features)
    return [item for rank, item in enumerate(ranked) if rank < TOP_FEATURES or item.feature in named]


def _calibration(verdict: Verdict) -> Iterator[_Row]:
    found = verdict.calibration
    if found is None:
        return
    prefix = "whydrift_calibration"
    yield (
        f"{prefix}_intercept",
        "Intercept of the newest mature cohort, in log-odds; 0 is ideal.",
        _one(found.intercept),
    )
    yield f"{prefix}_baseline_intercept", "The same in the baseline.", _one(found.baseline_intercept)
    yield f"{prefix}_slope", "Slope of the newest mature cohort; 1 is ideal.", _one(found.slope)
    yield f"{prefix}_baseline_slope", "The same in the baseline.", _one(found.baseline_slope)
    yield f"{prefix}_smece", "Smooth calibration error of the newest mature cohort.", _one(found.smece)
    yield f"{prefix}_baseline_smece", "The same in the baseline.", _one(found.baseline_smece)
    yield f"{prefix}_brier", "Brier score of the newest mature cohort.", _one(found.brier)
    yield f"{prefix}_baseline_brier", "The same in the baseline.", _one(found.baseline_brier)
    yield f"{prefix}_cohort_end_timestamp_seconds", "End of that cohort.", _time(found.cohort_end)


def _slices(verdict: Verdict) -> Iterator[_Row]:
    yield (
        "whydrift_slice_loss",
        "Mean loss of a configured slice; absent with too few labels.",
        [({"slice": item.slice}, item.loss) for item in verdict.slices],
    )
    yield (
        "whydrift_slice_baseline_loss",
        "The same loss in the baseline.",
        [({"slice": item.slice}, item.baseline_loss) for item in verdict.slices],
    )


def _job(job: JobStatus) -> Iterator[_Row]:
    # A job that has never succeeded exports 0, so that it is stale from its first failure on.
    succeeded = _one(job.last_success or 0.0)
    yield "whydrift_job_last_success_timestamp_seconds", "When a run last evaluated its window; 0 is never.", succeeded
    yield "whydrift_job_last_completion_timestamp_seconds", "When a run last ended.", _one(job.last_completion)
    yield (
        "whydrift_job_last_exit_code",
        "Exit code of the last run; 2 and 3 are failures, a verdict is none.",
        _one(job.exit_code),
    )
    yield "whydrift_job_interval_seconds", "Time between two scheduled runs.", _one(job.interval_seconds)
    yield (
        "whydrift_job_stage_duration_seconds",
        "How long each stage of the last run took.",
        [({"stage": stage}, seconds) for stage, seconds in job.stage_seconds.items()],
    )
