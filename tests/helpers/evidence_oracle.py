"""The e-detector for one stream, in scalars."""

from itertools import pairwise

import numpy as np
from scipy import stats

from simulated import DAY, START
from whydrift.monitors.evidence import LAMBDA, calendar
from whydrift.monitors.mixture import CLIP


def oracle(values, variances, baseline, page, holidays=frozenset()):
    """One stream by the book: least squares on all windows before, one at a time, and M in linear space."""
    design = np.array([calendar(START + i * DAY, DAY, holidays) for i in range(len(values))])
    ridge = np.diag([1e-8] + [0.25] * (design.shape[1] - 1))
    x, s2 = values[:baseline] - values[:baseline].mean(), variances[:baseline].mean()
    gram = design[:baseline].T @ design[:baseline]
    error = x - design[:baseline] @ np.linalg.solve(gram + ridge, design[:baseline].T @ x)
    variance = error @ error / (baseline - np.trace(np.linalg.inv(gram + ridge) @ gram))
    between = max(variance - s2, 0.05 * variance)
    relative = (between + variances) / (between + s2)

    kept: list[tuple[int, float]] = []
    rss, history, result = 0.0, [], []
    for t, value in enumerate(values):
        past, weight = design[:t], 1 / relative[:t]
        information = (past.T * weight) @ past + ridge
        beta = np.linalg.solve(information, (past.T * weight) @ (values[:t] - values[:baseline].mean()))
        leverage = design[t] @ np.linalg.inv(information) @ design[t]
        predicted = values[:baseline].mean() + design[t] @ beta
        w = (value - predicted) / np.sqrt(relative[t] + leverage)
        pairs = [(b, a) for (i, a), (j, b) in pairwise(kept) if j == i + 1]
        phi, number = 0.0, len(pairs)
        if number >= 8:
            r = sum(a * b for a, b in pairs) / sum((a * a + b * b) / 2 for a, b in pairs)
            phi = min(max(r + (1 + 3 * r) / number + 0.5 / number**0.5, 0), 0.9)
        follows = kept and kept[-1][0] == t - 1
        u = (w - phi * kept[-1][1]) / (1 - phi**2) ** 0.5 if follows else w
        if len(kept) >= 8:
            scale = (rss / len(kept)) ** 0.5
            q = stats.norm.isf(stats.t.sf(u / scale, len(kept)))
            history.append(q)
            result.append((predicted, w / scale, q))
        if leverage <= 2:
            kept.append((t, w))
            rss += u * u

    early = np.clip(history[: baseline - len(values)], -CLIP, CLIP)
    psi = [max(k * k / 2, np.log(np.mean([np.exp(k * early), np.exp(-k * early)]))) for k in LAMBDA]
    parts, total = {(k, sign): 0.0 for k in range(4) for sign in (1, -1)}, []
    for q in history[baseline - len(values) :]:
        for (k, sign), part in parts.items():
            parts[k, sign] = (part + 1) * np.exp(LAMBDA[k] * sign * np.clip(q, -CLIP, CLIP) - psi[k])
        total.append(sum(parts.values()) / 8)
        if total[-1] >= page:
            break
    return np.array(result[baseline - len(values) :][: len(total)]), np.array(total)
