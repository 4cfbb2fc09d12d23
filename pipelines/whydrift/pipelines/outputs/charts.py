"""The report's figures as inline SVG.

Colours leave as CSS variables (`PALETTE` names them), so that a figure follows its page into dark mode and print;
texts leave as texts, in the page's font. Equal inputs give equal bytes. matplotlib reads a few of its settings
from globals only: they are set for the time of a drawing and restored, so draw from one thread at a time.
"""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime
from typing import Any

from whydrift.monitors.loss_attribution import BEYOND
from whydrift.monitors.verdict import FeatureAttribution, ReliabilityBin, ScoreShift, Status, Verdict
from whydrift.monitors.verdict_loss import FeatureLoss, LossAttribution

PALETTE = {
    "ink": "#1c2430",
    "muted": "#5b6675",
    "line": "#d9dee5",
    "band": "#b9c4d2",
    "then": "#8794a5",
    "now": "#0068a8",
    "moved": "#c2410c",
    "composition": "#3a92d0",
    "response": "#b5508f",
    "ok": "#00795a",
    "ticket": "#a36000",
    "page": "#c2361b",
    "insufficient_data": "#6b7789",
    "not_evaluated": "#7a5aa6",
}
"""Colours of the light page; told apart with any colour vision, and never without a shape or a word beside them."""

MARKERS = {
    Status.OK: "o",
    Status.TICKET: "^",
    Status.PAGE: "s",
    Status.INSUFFICIENT_DATA: "d",
    Status.NOT_EVALUATED: "X",
}
_EVALUATED = (Status.OK, Status.TICKET, Status.PAGE)
_LABEL_LENGTH = 26
_TEXT = 11.0  # one point is one pixel, see _svg
_ROW = 21  # pixels a feature
_PANEL = 92  # pixels a feature over time
_NARROW = 440  # pixels, so that a phone can show the figure


def timeline(windows: Sequence[Verdict]) -> str:
    """Evidence by window against the thresholds; the last window is the one reported, `windows` is in time order."""
    last = windows[-1]
    top = 2.5 * max([last.budget.page_threshold, *(w.budget.evidence for w in windows if w.status in _EVALUATED)])

    def draw(figure: Any) -> None:
        axes = _axes(figure, left=46, right=92, bottom=26, top=8)
        axes.set_yscale("symlog", linthresh=1, linscale=0.5)
        axes.set_ylim(0, top)
        axes.set_yticks([0, *(10**k for k in range(12) if 10**k < top)], minor=False)
        axes.set_yticks([], minor=True)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        width = last.key.end - last.key.start
        axes.set_xlim(windows[0].key.start - width, last.key.start + width)
        _time_axis(axes)
        for name, threshold in (("ticket", last.budget.ticket_threshold), ("page", last.budget.page_threshold)):
            axes.axhline(threshold, color=PALETTE[name], linewidth=1, linestyle=(0, (5, 3)))
            axes.annotate(
                f"{name} at {threshold:,.3g}",
                (1, threshold),
                (6, 0),
                xycoords=("axes fraction", "data"),
                textcoords="offset points",
                color=PALETTE[name],
                verticalalignment="center",
            )
        if last.since is not None:
            _mark_onset(axes, last.since, windows)
        _mark_windows(axes, windows)

    return _svg(draw, "timeline", (1040, 232), "Evidence by window against the page and ticket thresholds")


def losses(cohorts: Sequence[LossAttribution], features: Sequence[str]) -> str:
    """The mean loss attribution of each feature by cohort, over the baseline's band; `cohorts` in the order of time."""
    height = len(features) * _PANEL + 34
    start, width = cohorts[0].cohort_start, cohorts[0].cohort_end - cohorts[0].cohort_start

    def draw(figure: Any) -> None:
        for number, name in enumerate(features):
            top = 8 + number * _PANEL
            axes = _axes(figure, left=62, right=150, bottom=height - top - _PANEL + 12, top=top)
            axes.set_xlim(start - width, cohorts[-1].cohort_start + width)
            _time_axis(axes)
            axes.yaxis.set_major_locator(_few_ticks())
            if number < len(features) - 1:
                axes.tick_params(axis="x", labelbottom=False)
            _mark_losses(
                axes, [(c.cohort_start, c.cohort_end, f) for c in cohorts for f in c.features if f.feature == name]
            )
            _beside(axes, sum(axes.get_ylim()) / 2, _shorten(name), PALETTE["ink"])

    return _svg(draw, "losses", (1040, height), "Mean loss attribution by feature over time, with the baseline's band")


def _mark_losses(axes: Any, points: Sequence[tuple[datetime, datetime, FeatureLoss]]) -> None:
    """A feature's values with their 95 % intervals, squares where they are beyond what windows differ by."""
    last = points[-1][2]
    axes.axhline(0, color=PALETTE["muted"], linewidth=0.9)
    if last.baseline is not None and last.deviation is not None:
        axes.axhspan(
            last.baseline - 2 * last.deviation, last.baseline + 2 * last.deviation, color=PALETTE["band"], alpha=0.55
        )
    for before, (at, _, own) in zip([None, *points], points, strict=False):
        if before is not None and before[1] == at:
            axes.plot([before[0], at], [before[2].value, own.value], color=PALETTE["then"], linewidth=1.2, zorder=2)
    for marker, colour, beyond in (("o", "now", False), ("s", "moved", True)):
        chosen = [(at, f) for at, _, f in points if (abs(f.effect or 0.0) >= BEYOND) == beyond]
        axes.errorbar(
            [at for at, _ in chosen],
            [f.value for _, f in chosen],
            [1.96 * f.error for _, f in chosen],
            linestyle="none",
            marker=marker,
            markersize=4.5,
            elinewidth=1,
            color=PALETTE[colour],
            zorder=3,
        )


def _mark_onset(axes: Any, since: datetime, windows: Sequence[Verdict]) -> None:
    """The onset and what came after; one before the first window shown is marked at that."""
    first, last = windows[0].key.start, windows[-1].key.end
    start = max(since, first)
    axes.axvspan(start, last, color=PALETTE["moved"], alpha=0.08, linewidth=0)
    axes.axvline(start, color=PALETTE["moved"], linewidth=1.2)
    left = start - first < (last - first) / 3  # no room for the text before the line
    axes.annotate(
        f"since {since.astimezone(UTC):%Y-%m-%d %H:%M}",
        (start, 1),
        (5 if left else -5, -10),
        xycoords=("data", "axes fraction"),
        textcoords="offset points",
        color=PALETTE["moved"],
        horizontalalignment="left" if left else "right",
    )


def _mark_windows(axes: Any, windows: Sequence[Verdict]) -> None:
    """A line through the evaluated windows, broken where one is missing; the others stand on the axis."""
    times, evidence = [], []
    for before, window in zip([None, *windows], windows, strict=False):
        if before is not None and window.key.start > before.key.end:
            times.append(before.key.end)
            evidence.append(float("nan"))
        times.append(window.key.start)
        evidence.append(window.budget.evidence if window.status in _EVALUATED else float("nan"))
    axes.plot(times, evidence, color=PALETTE["then"], linewidth=1.2, zorder=2)
    for status, marker in MARKERS.items():
        chosen = [w for w in windows if w.status == status]
        if chosen:
            axes.plot(
                [w.key.start for w in chosen],
                [w.budget.evidence if status in _EVALUATED else 0.0 for w in chosen],
                linestyle="none",
                marker=marker,
                markersize=5.5,
                color=PALETTE[status.value],
                clip_on=False,
                zorder=3,
            )


def _time_axis(axes: Any) -> None:
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

    locator = AutoDateLocator(tz=UTC, minticks=3, maxticks=9)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(
        ConciseDateFormatter(
            locator,
            tz=UTC,
            formats=["%Y", "%Y-%m", "%m-%d", "%H:%M", "%H:%M", "%S"],
            zero_formats=["", "%Y", "%Y-%m", "%m-%d", "%H:%M", "%H:%M"],
            show_offset=False,
        )
    )


def shares(rows: Sequence[FeatureAttribution], drifted: Collection[str], labels: dict[str, str]) -> str:
    """Each feature's share of the attribution then and now, joined by a line; `labels` are appended to names."""

    def draw(figure: Any) -> None:
        axes = _feature_axes(figure, [(r.feature, labels.get(r.feature, ""), r.feature in drifted) for r in rows], 104)
        end = 1.08 * max(max(r.share, r.baseline_share) for r in rows) or 1.0
        axes.set_xlim(0, end)
        axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.3g}%")
        ys = range(len(rows))
        colours = [PALETTE["moved" if r.feature in drifted else "now"] for r in rows]
        then, now = [r.baseline_share for r in rows], [r.share for r in rows]
        axes.hlines(ys, then, now, colors=colours, linewidth=2.2, zorder=2)
        axes.scatter(
            then, ys, 38, facecolors="none", edgecolors=PALETTE["then"], linewidths=1.6, clip_on=False, zorder=3
        )
        axes.scatter(now, ys, 44, c=colours, clip_on=False, zorder=4)
        for y, row in enumerate(rows):
            text = f"{100 * row.baseline_share:.1f} → {100 * row.share:.1f}%"
            _beside(axes, y, text, colours[y] if row.feature in drifted else PALETTE["muted"])

    return _svg(draw, "shares", (_NARROW, _height(len(rows))), "Share of the attribution by feature, then and now")


def score_shift(rows: Sequence[FeatureAttribution], others: FeatureAttribution | None, score: ScoreShift) -> str:
    """Each feature's part of the score shift, as composition and response, and the base's part."""
    bars = [(r.feature, r.composition, r.response, r.shift) for r in rows]
    if others is not None:
        bars.append((others.feature, others.composition, others.response, others.shift))

    def draw(figure: Any) -> None:
        axes = _feature_axes(figure, [*((b[0], "", False) for b in bars), ("base", "", False)], 66)
        ys = range(len(bars))
        _, composition, response, shift = zip(*bars, strict=True)
        start = [c if c * r > 0 else 0.0 for c, r in zip(composition, response, strict=True)]
        axes.barh(ys, composition, 0.56, color=PALETTE["composition"])
        axes.barh(ys, response, 0.56, start, color=PALETTE["response"])
        axes.vlines(shift, [y - 0.4 for y in ys], [y + 0.4 for y in ys], colors=PALETTE["ink"], linewidth=1.6)
        axes.barh(len(bars), score.base_shift, 0.56, color=PALETTE["then"])
        sums = [*shift, score.base_shift]
        digits = _digits(max(map(abs, sums)))
        for y, value in enumerate(sums):
            text = f"{value:+.{digits}f}".replace("-", "−") if round(value, digits) else "0"
            _beside(axes, y, text, PALETTE["muted"])
        axes.axvline(0, color=PALETTE["muted"], linewidth=0.9, zorder=3)
        axes.margins(x=0.06)
        axes.xaxis.set_major_locator(_few_ticks())

    return _svg(draw, "shift", (_NARROW, _height(len(bars) + 1)), "Score shift by feature, composition and response")


def reliability(bins: Sequence[ReliabilityBin]) -> str:
    """Observed frequency by predicted probability over the consistency band; points grow with their rows."""

    def draw(figure: Any) -> None:
        axes = _axes(figure, left=52, right=12, bottom=42, top=10)
        end = min(1.0, 1.06 * max(max(b.predicted, b.observed, b.upper) for b in bins)) or 1.0
        axes.set_xlim(0, end)
        axes.set_ylim(0, end)
        x = [b.predicted for b in bins]
        axes.fill_between(
            x, [b.lower for b in bins], [b.upper for b in bins], color=PALETTE["band"], alpha=0.55, linewidth=0
        )
        axes.plot([0, end], [0, end], color=PALETTE["muted"], linewidth=1, linestyle=(0, (4, 3)))
        axes.plot(x, [b.observed for b in bins], color=PALETTE["now"], linewidth=1)
        most = max(b.rows for b in bins) or 1.0
        for marker, colour, chosen in (
            ("o", "now", [b for b in bins if b.lower <= b.observed <= b.upper]),
            ("s", "moved", [b for b in bins if not b.lower <= b.observed <= b.upper]),
        ):
            axes.scatter(
                [b.predicted for b in chosen],
                [b.observed for b in chosen],
                [16 + 60 * b.rows / most for b in chosen],
                color=PALETTE[colour],
                marker=marker,
                clip_on=False,
                zorder=3,
            )
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(lambda value, _: f"{100 * value:.3g}%")
            axis.set_major_locator(_few_ticks())
        axes.set_xlabel("predicted", color=PALETTE["muted"])
        axes.set_ylabel("observed", color=PALETTE["muted"])

    return _svg(draw, "reliability", (380, 340), "Reliability diagram with its 90 % consistency band")


def _few_ticks() -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(5)


def _height(rows: int) -> int:
    return rows * _ROW + 40


def _axes(figure: Any, *, left: float, right: float, bottom: float, top: float) -> Any:
    """Axes inside margins given in pixels, with a frame reduced to what is read."""
    width, height = 72 * figure.get_size_inches()
    axes = figure.add_axes((left / width, bottom / height, 1 - (left + right) / width, 1 - (bottom + top) / height))
    axes.set_facecolor("none")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(PALETTE["line"])
    axes.tick_params(color=PALETTE["line"], labelcolor=PALETTE["muted"], length=3)
    axes.grid(color=PALETTE["line"], linewidth=0.6)
    axes.set_axisbelow(True)
    return axes


def _feature_axes(figure: Any, names: Sequence[tuple[str, str, bool]], right: float) -> Any:
    """One line a feature, from the top; a name comes with a suffix and whether it is set in bold."""
    labels = [_shorten(name) + (f" · {_shorten(suffix)}" if suffix else "") for name, suffix, _ in names]
    left = min(200.0, 16 + 6.4 * max(map(len, labels)))
    axes = _axes(figure, left=left, right=right, bottom=24, top=6)
    axes.set_yticks(range(len(names)), labels)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0, labelcolor=PALETTE["ink"])
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)
    for tick, (_, _, bold) in zip(axes.get_yticklabels(), names, strict=True):
        if bold:
            tick.set(color=PALETTE["moved"], fontweight="bold")
    return axes


def _beside(axes: Any, y: float, text: str, colour: str) -> None:
    """A number in the right margin."""
    axes.annotate(
        text,
        (1, y),
        (8, 0),
        xycoords=("axes fraction", "data"),
        textcoords="offset points",
        verticalalignment="center",
        color=colour,
    )


def _shorten(name: str) -> str:
    return name if len(name) <= _LABEL_LENGTH else name[: _LABEL_LENGTH - 1] + "…"


def _digits(largest: float) -> int:
    """Decimals that show two digits of the largest number."""
    return max(0, 1 - math.floor(math.log10(largest))) if largest else 0


def _svg(draw: Callable[[Any], None], name: str, size: tuple[int, int], label: str) -> str:
    """Draw at 72 dots an inch, where a point is a pixel, and return an element that stands inside HTML.

    `name` salts the ids, so that those of two figures on one page differ.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    settings = {
        "svg.hashsalt": name,
        "svg.fonttype": "none",
        "text.parse_math": False,
        "text.usetex": False,
        "font.size": _TEXT,
        "font.family": ["DejaVu Sans"],  # only measures: the page's font is drawn
        "path.simplify": False,
    }
    buffer = io.StringIO()
    with mpl.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # the browser has other fonts
        figure = Figure(figsize=(size[0] / 72, size[1] / 72), dpi=72, facecolor="none")
        draw(figure)
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    return _embed(buffer.getvalue(), size, label)


_STYLE = re.compile(r'style="([^"]*)"')
_COLOUR = re.compile(r"#[0-9a-f]{6}")
_VARIABLES = {colour: f"var(--{name})" for name, colour in PALETTE.items()}


def _embed(svg: str, size: tuple[int, int], label: str) -> str:
    """Drop what only a file of its own needs. Every `<` of a text is escaped by now, so a tag here is a tag."""
    body = svg[svg.index(">", svg.index("<svg")) + 1 :]
    for pattern, replacement in (
        (r'<defs>\s*<style type="text/css">[^<]*</style>\s*</defs>', ""),
        (r'<g id="[^"]*"', "<g"),
        (r' transform="rotate\(-0 [^"]*\)"', ""),
        (r"\s*\n\s*", "\n"),
    ):
        body = re.sub(pattern, replacement, body)
    body = _STYLE.sub(lambda match: f'style="{_restyle(match[1])}"', body)
    width, height = size
    return (
        f'<svg viewBox="0 0 {width} {height}" style="--width:{width}px" role="img" aria-label="{label}">'
        + body.strip().replace("xlink:href", "href")
    )


def _restyle(style: str) -> str:
    kept = "; ".join(part for part in style.split("; ") if not part.startswith("font-family"))
    return _COLOUR.sub(lambda match: _VARIABLES.get(match[0], match[0]), kept)
