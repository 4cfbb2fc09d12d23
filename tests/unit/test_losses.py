"""Losses: the usual ones against scikit-learn, a user's own, and what is said of a wrong one."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError
from sklearn import metrics

from whydrift.pipelines import config as configuration
from whydrift.pipelines.errors import ConfigError, ModelError
from whydrift.pipelines.explainers.losses import find_loss, try_loss
from whydrift.pipelines.loss_section import LossAttribution

RNG = np.random.default_rng(0)
LABEL = RNG.integers(0, 2, 50).astype(float)
CLASS = RNG.integers(0, 3, 50).astype(float)
P = RNG.uniform(0.01, 0.99, 50)
CLASSES_P = RNG.dirichlet([1.0, 2.0, 3.0], 50)
VALUE, TRUTH = RNG.normal(size=50), RNG.normal(size=50)


@pytest.mark.parametrize(
    ("task", "loss", "label", "prediction", "expected"),
    [
        ("binary", "auto", LABEL, P, metrics.brier_score_loss(LABEL, P)),
        ("binary", "log_loss", LABEL, P, metrics.log_loss(LABEL, P)),
        ("multiclass", "auto", CLASS, CLASSES_P, ((np.eye(3)[CLASS.astype(int)] - CLASSES_P) ** 2).sum(axis=1).mean()),
        ("multiclass", "log_loss", CLASS, CLASSES_P, metrics.log_loss(CLASS, CLASSES_P)),
        ("regression", "auto", TRUTH, VALUE, metrics.mean_squared_error(TRUTH, VALUE)),
        ("regression", "absolute_error", TRUTH, VALUE, metrics.mean_absolute_error(TRUTH, VALUE)),
        ("regression", "pinball", TRUTH, VALUE, metrics.mean_pinball_loss(TRUTH, VALUE, alpha=0.8)),
    ],
)
def test_the_mean_is_scikit_learns(task, loss, label, prediction, expected):
    values = find_loss(LossAttribution(loss=loss, quantile=0.8), task)(label, prediction)
    assert values.shape == (50,)
    assert values.mean() == pytest.approx(expected, rel=1e-12)


def test_names_say_all_that_the_loss_depends_on():
    names = [find_loss(LossAttribution(loss="pinball", quantile=q), "regression").name for q in (0.5, 0.9)]
    assert names == ["pinball at 0.5", "pinball at 0.9"]
    assert find_loss(LossAttribution(), "multiclass").name == "brier"
    assert find_loss(LossAttribution(), "regression").name == "squared_error"


class TestUsers:
    def tried(self, name, prediction=P[:8], classes=2):
        loss = find_loss(LossAttribution(loss=f"user_losses:{name}"), "binary")
        try_loss(loss, prediction, classes)
        return loss

    def test_is_called_with_labels_and_predictions(self):
        loss = self.tried("cost")
        assert loss.name == "user_losses:cost"
        np.testing.assert_allclose(loss(np.array([1.0, 0.0]), np.array([0.5, 0.5])), [1.25, 0.25])

    @pytest.mark.parametrize(
        ("name", "said"),
        [
            ("mean_cost", r"gives shape \(\) for 8 rows; one number a row"),
            ("batch_cost", "gives a row another loss beside other rows than alone"),
            ("infinite", "gives inf for a row"),
            ("failing", "fails: LookupError: 'no table of costs'|fails: LookupError: no table of costs"),
            ("NOT_A_FUNCTION", "is a int and no function"),
            ("absent", "cannot be imported: module 'user_losses' has no attribute 'absent'"),
        ],
    )
    def test_a_wrong_one_is_refused(self, name, said):
        with pytest.raises(ConfigError, match=rf"^loss_attribution\.loss: .*({said})"):
            self.tried(name)

    def test_a_module_that_is_not_there(self):
        with pytest.raises(
            ConfigError, match=r"'nowhere\.at_all:cost' cannot be imported: No module named 'nowhere'.*"
        ):
            find_loss(LossAttribution(loss="nowhere.at_all:cost"), "binary")

    def test_a_failure_later_on_is_of_the_model(self):
        loss = find_loss(LossAttribution(loss="user_losses:failing"), "binary")
        with pytest.raises(ModelError, match="user_losses:failing fails: LookupError"):
            loss(LABEL, P)


@pytest.mark.parametrize("classes", [0, 2, 3])
def test_what_is_built_in_passes_the_trial(classes):
    task = {0: "regression", 2: "binary", 3: "multiclass"}[classes]
    prediction = {0: VALUE, 2: P, 3: CLASSES_P}[classes][:6]
    for name in ("brier", "log_loss") if classes else ("squared_error", "absolute_error", "pinball"):
        try_loss(find_loss(LossAttribution(loss=name), task), prediction, classes)


class TestConfigured:
    def load(self, tmp_path, text):
        path = tmp_path / "meters.yaml"
        lines = ["model: {name: meters}", "mlflow: {tracking_uri: 'http://mlflow'}", "inference_log: {path: logs}"]
        lines += ["baseline: {start: 2024-01-01, end: 2024-02-01}", "store: store", "outputs: outputs", text]
        path.write_text("\n".join(lines).replace("model: {name: meters}\n", "", "model:" in text))
        return configuration.load(path)

    def test_a_name_that_is_no_loss(self, tmp_path):
        with pytest.raises(ConfigError, match=r"meters.yaml:8: loss_attribution.loss: 'hinge' is none of auto, brier"):
            self.load(tmp_path, "loss_attribution:\n  loss: hinge")

    @pytest.mark.parametrize("loss", ["squared_error", "pinball"])
    def test_a_loss_of_another_task(self, tmp_path, loss):
        with pytest.raises(ConfigError, match=f"loss_attribution.loss: {loss} is not a loss of binary"):
            self.load(tmp_path, f"loss_attribution: {{loss: {loss}}}")

    def test_rows(self, tmp_path):
        assert self.load(tmp_path, "loss_attribution: {rows: 0}").loss_attribution.rows == 0
        assert self.load(tmp_path, "").loss_attribution.rows == "auto"
        with pytest.raises(ValidationError):
            LossAttribution(rows=-1)

    def test_space_of_a_regression(self, tmp_path):
        text = "model: {name: meters, task: regression}\nexplainer: {space: probability}"
        with pytest.raises(ConfigError, match=r"explainer\.space: a regression predicts no probability"):
            self.load(tmp_path, text)
