"""Written by benchmarks/attributions/fit_costs.py; see costs.py."""

SECONDS = {
    "xgboost": ((0.01, 0, 0, 0, 0, 0), (0,) * 6, (0, 0, 0, 0, 5e-10, 0), (0,) * 6),
}
