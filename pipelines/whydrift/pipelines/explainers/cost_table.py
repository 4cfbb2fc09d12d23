"""Written by benchmarks/attributions/fit_costs.py; what it means is in costs.py."""

_NONE = (0.0,) * 6

SECONDS = {
    "xgboost": (_NONE, _NONE, (0.0, 0.0, 0.0, 0.0, 1e-9, 0.0), _NONE),
    "lightgbm": (_NONE, _NONE, (0.0, 0.0, 0.0, 0.0, 3e-9, 0.0), _NONE),
    "catboost": ((0.0, 0.0, 0.0, 0.0, 0.0, 1e-8), _NONE, (0.0, 2e-8, 0.0, 0.0, 0.0, 0.0), _NONE),
    "trees:path_dependent": ((2.0, 0.0, 0.0, 0.0, 0.0, 1e-7), _NONE, (0.0, 0.0, 4e-9, 0.0, 0.0, 0.0), _NONE),
    "trees:interventional": ((2.0, 0.0, 0.0, 0.0, 0.0, 1e-7), _NONE, (0.0, 0.0, 4e-9, 0.0, 0.0, 0.0), _NONE),
    "shap:path_dependent": ((5.0, 0.0, 0.0, 0.0, 0.0, 0.0), _NONE, (0.0, 0.0, 0.0, 0.0, 2.5e-9, 0.0), _NONE),
    "shap:interventional": ((5.0, 0.0, 0.0, 0.0, 0.0, 0.0), _NONE, _NONE, (0.0, 0.0, 0.0, 5e-9, 0.0, 0.0)),
}
