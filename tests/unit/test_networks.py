"""PyTorch networks: closed forms, captum and shap themselves, brute force, and the same bits in any batch."""

from __future__ import annotations

import sys
import warnings
from typing import ClassVar

import captum.attr
import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import expit, softmax
from torch import nn

from brute_force import shapley
from whydrift.pipelines.errors import ModelError
from whydrift.pipelines.explainers.choose import choose
from whydrift.pipelines.explainers.protocol import answers

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", r"The set_\w+ function", PendingDeprecationWarning)
    import shap

FEATURES = list("abcdef")
CLASSES = ("calm", "busy", "storm")
RNG = np.random.default_rng(0)
ROWS = pd.DataFrame(RNG.normal(size=(400, 6)).round(3), columns=FEATURES)
BACKGROUND, FEW = ROWS[:20], ROWS[100:130].reset_index(drop=True)
GRADIENTS = ["deep_lift", "gradient_shap", "integrated_gradients"]


class Functional(nn.Module):
    """Activations as functions, which DeepLift has no hooks for; probabilities at the end."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(6, 8), nn.Linear(8, 1)

    def forward(self, x):
        return torch.sigmoid(self.last(torch.tanh(self.first(x)))).squeeze(1)


class Steps(nn.Module):
    """No gradient: looks its weights up by whole numbers."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(3, 1)

    def forward(self, x):
        return self.table((x > 0).long()).sum(dim=1)


def network(outputs=1, *, activation=nn.ReLU, end=()):
    torch.manual_seed(4)
    layers = nn.Linear(6, 12), activation(), nn.Dropout(0.5), nn.Linear(12, 12), activation(), nn.Linear(12, outputs)
    net = nn.Sequential(*layers, *end)
    with torch.no_grad():  # as far from a line as a trained one
        for layer in layers[::3]:
            layer.weight *= 3
    return net


def functional():
    torch.manual_seed(4)
    return Functional()


# model, task, link, a method that fits
NETWORKS = {
    "logit": (network, "binary", "logit", "deep_lift"),
    "sigmoid": (lambda: network(end=[nn.Sigmoid(), nn.Flatten(0)]), "binary", "logit", "deep_lift"),
    "nested": (lambda: nn.Sequential(nn.Identity(), network(end=[nn.Sigmoid()])), "binary", "logit", "deep_lift"),
    "two logits": (lambda: network(2), "binary", "logit", "deep_lift"),
    "two scores": (lambda: network(2, end=[nn.Softmax(dim=1)]), "binary", "logit", "deep_lift"),
    "probability": (functional, "binary", "identity", "gradient_shap"),
    "gelu": (lambda: network(activation=nn.GELU), "binary", "logit", "gradient_shap"),
    "value": (network, "regression", "identity", "deep_lift"),
    "flat value": (lambda: network(end=[nn.Flatten(0)]), "regression", "identity", "deep_lift"),
    "bounded value": (lambda: network(end=[nn.Sigmoid()]), "regression", "identity", "deep_lift"),
    "three logits": (lambda: network(3), "multiclass", "softmax", "deep_lift"),
    "three scores": (lambda: network(3, end=[nn.Softmax(dim=-1)]), "multiclass", "softmax", "deep_lift"),
    "log scores": (lambda: network(3, end=[nn.LogSoftmax(dim=-1)]), "multiclass", "softmax", "deep_lift"),
    "one against the rest": (lambda: network(3, end=[nn.Sigmoid()]), "multiclass", "identity", "deep_lift"),
}


def explainer(model, task="binary", method="deep_lift", background=BACKGROUND, features=FEATURES):
    classes = CLASSES if task == "multiclass" else ()
    return choose(model, method=method, task=task, background=background, features=features, classes=classes)


def logged(model, task, link):
    """The prediction of the deployed model, from its own outputs."""
    with torch.no_grad():
        raw = model.eval()(torch.tensor(FEW.to_numpy(np.float32))).numpy().astype(float)
    if task == "binary" and raw.ndim == 2 and raw.shape[1] == 2:
        raw = raw[:, 1] if abs(raw.sum(axis=1) - 1).max() < 1e-5 else expit(raw[:, 1] - raw[:, 0])
    elif task == "binary" and (raw.min() < 0 or raw.max() > 1):
        raw = expit(raw)
    elif task == "multiclass" and link == "softmax" and (raw.min() < 0 or raw.max() > 1):
        raw = softmax(raw, axis=1)
    return raw if task == "multiclass" else raw.reshape(len(FEW))


@pytest.mark.parametrize("name", NETWORKS)
def test_the_scores_behind_the_logged_prediction_are_explained(name):
    build, task, link, method = NETWORKS[name]
    model = build()
    made = explainer(model, task, method)
    found = made.explain(FEW)
    assert (made.name, made.link) == (f"captum:{method}", link)
    assert {"background", "torch", "captum"} == set(made.parameters)
    assert found.values.shape == found.error.shape == ((30, 3, 6) if task == "multiclass" else (30, 6))
    np.testing.assert_allclose(answers(found.output, link), logged(model, task, link), atol=2e-6)
    limit = 1e-10 if method == "deep_lift" else 1e-3 * found.output.std()
    assert np.abs(found.residual()).max() < limit
    assert np.abs(found.values).mean() > 0.01
    assert made.explain(FEW[:0]).values.shape == (0, *found.values.shape[1:])


@pytest.mark.parametrize("method", GRADIENTS)
@pytest.mark.parametrize(("outputs", "task"), [(1, "binary"), (2, "binary"), (3, "multiclass")])
def test_a_row_has_the_same_bits_in_any_batch(outputs, task, method):
    made = explainer(network(outputs, activation=nn.Tanh), task, method)
    few = FEW[:7]
    whole = made.explain(few)
    order = np.array([3, 0, 6, 1, 5, 2, 4])
    pieces = [made.explain(few.iloc[part]) for part in (order[:1], order[1:3], order[3:])]
    for field in ("values", "output", "error"):
        if getattr(whole, field) is not None:
            np.testing.assert_array_equal(
                np.concatenate([getattr(p, field) for p in pieces]), getattr(whole, field)[order]
            )
    assert {piece.base for piece in pieces} == {whole.base}


class Threads(nn.Linear):
    """Says on how many threads it runs."""

    seen: ClassVar[set[int]] = set()

    def forward(self, x):
        self.seen.add(torch.get_num_threads())
        return super().forward(x)


@pytest.mark.parametrize("method", [*GRADIENTS, "permutation"])
def test_it_runs_on_one_thread_and_leaves_their_number_as_it_was(method):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    explainer(Threads(6, 1), "regression", method).explain(FEW[:2])
    assert torch.get_num_threads() == 2
    torch.set_num_threads(before)
    assert Threads.seen == {1}


@pytest.mark.parametrize("method", GRADIENTS)
@pytest.mark.parametrize("task", ["regression", "multiclass"])
def test_of_a_linear_network_all_give_the_shapley_value(method, task):
    layer = nn.Linear(6, 3 if task == "multiclass" else 1)
    made = explainer(nn.Sequential(layer), task, method)
    found = made.explain(FEW)
    weights = layer.weight.detach().numpy().astype(float)
    expected = weights * (FEW - BACKGROUND.mean()).to_numpy()[:, None, :]
    np.testing.assert_allclose(found.values, expected.squeeze(1) if task == "regression" else expected, atol=1e-6)
    if method == "integrated_gradients":
        assert found.error is None
    else:  # the error of the background's mean
        error = np.abs(weights) * (BACKGROUND.std(ddof=1) / np.sqrt(20)).to_numpy()
        np.testing.assert_allclose(found.error[0], error[0] if task == "regression" else error, rtol=1e-5)


def doubles(frame):
    return torch.tensor(frame.to_numpy(np.float32)).double()


def score_of(model):
    twin = model.eval().double()
    return lambda rows: twin(doubles(rows)).detach().numpy()[:, 0]


@pytest.mark.filterwarnings("ignore:Setting forward, backward hooks", "ignore:Input Tensor 0 did not")
def test_against_captum_itself():
    made = {method: explainer(network(), method=method).explain(FEW).values for method in GRADIENTS}
    model, rows, others = network().eval().double(), doubles(FEW), doubles(BACKGROUND)
    lift = captum.attr.DeepLiftShap(model).attribute(rows, others).detach().numpy()
    np.testing.assert_allclose(made["deep_lift"], lift, atol=1e-10)
    integrated = captum.attr.IntegratedGradients(model)
    line = integrated.attribute(
        rows, others.mean(dim=0, keepdim=True), n_steps=4000, method="riemann_trapezoid"
    ).numpy()
    np.testing.assert_allclose(made["integrated_gradients"], line, atol=5e-3 * np.abs(line).max())
    each = [
        integrated.attribute(rows[:8], other[None], n_steps=1000, method="riemann_trapezoid").numpy()
        for other in others
    ]
    mean = np.mean(each, axis=0)
    np.testing.assert_allclose(made["gradient_shap"][:8], mean, atol=5e-3 * np.abs(mean).max())


@pytest.mark.filterwarnings("ignore")  # shap's hooks warn of what torch is going to change
def test_against_shap():
    model = network()
    rows, others = torch.tensor(FEW.to_numpy(np.float32)), torch.tensor(BACKGROUND.to_numpy(np.float32))
    deep = np.asarray(shap.DeepExplainer(model.eval(), others).shap_values(rows, check_additivity=False))[..., 0]
    np.testing.assert_allclose(explainer(network(), method="deep_lift").explain(FEW).values, deep, atol=1e-4)
    sampled = shap.GradientExplainer(model, others).shap_values(rows[:8], nsamples=4000, rseed=0)
    found = explainer(network(), method="gradient_shap").explain(FEW[:8]).values
    off = np.abs(found - np.asarray(sampled)[..., 0])
    assert off.mean() < 0.03 * np.abs(found).mean()


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh, nn.Softplus])
def test_how_far_each_is_from_the_interventional_shapley_value(activation):
    """Averages over the background come near it, one reference does not: and sampling is nearer than both."""
    few = FEW[:10]
    exact = shapley(score_of(network(activation=activation)), few, BACKGROUND)
    off = {}
    for method in [*GRADIENTS, "permutation", "kernel"]:
        found = explainer(network(activation=activation), method=method).explain(few).values
        off[method] = np.abs(found - exact).mean() / np.abs(exact).mean()
    assert max(off["deep_lift"], off["gradient_shap"]) < 0.5
    assert off["integrated_gradients"] > 1.5 * off["deep_lift"]
    assert off["permutation"] < off["deep_lift"]
    assert off["kernel"] < 1e-3  # all coalitions; the deployed network is float32


def test_auto_samples_networks():
    """Of a network too `auto` is about Shapley values; the other methods answer other questions."""
    made = explainer(network(), method="auto")
    assert (made.name, made.link) == ("permutation", "logit")


def test_what_has_no_gradient_is_sampled():
    made = explainer(Steps(), "regression", "auto")
    assert made.name == "permutation"
    assert np.abs(made.explain(FEW).residual()).max() < 1e-6
    with pytest.raises(ModelError, match="no gradient_shap explainer for this Steps"):
        explainer(Steps(), "regression", "gradient_shap")


def test_deep_lift_is_refused_where_it_misses_the_output():
    with pytest.raises(ModelError, match="captum:deep_lift miss the model's output"):
        explainer(network(activation=nn.GELU), method="deep_lift")


class FillsGaps(nn.Module):
    def forward(self, x):
        return torch.nan_to_num(x).sum(dim=1)


def test_missing_values():
    gaps = FEW.assign(b=np.where(FEW.index == 3, np.nan, FEW["b"]))
    with pytest.raises(ModelError, match="takes no missing or infinite values"):
        explainer(network()).explain(gaps)
    with pytest.raises(ModelError, match=r"no finite numbers for the background rows \(b\).*impute"):
        explainer(network(), background=gaps)
    sampled = explainer(FillsGaps(), "regression", "auto", background=gaps)
    assert sampled.name == "permutation"
    assert np.isfinite(sampled.explain(gaps).values).all()


@pytest.mark.parametrize(
    ("model", "task", "features", "message"),
    [
        (network(), "binary", [*FEATURES[:5], "kind"], "takes numbers, and kind is text"),
        (network(), "binary", FEATURES[:5], "Sequential: the network cannot be called on float32 rows of 5"),
        (network(3), "binary", FEATURES, r"array of shape \(20, 3\)"),
        (network(2), "multiclass", FEATURES, "3 probabilities, one for each of model.classes"),
    ],
)
def test_refusals(model, task, features, message):
    with pytest.raises(ModelError, match=message):
        explainer(model, task, background=BACKGROUND.assign(kind="x"), features=features)


def test_without_captum(monkeypatch):
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    with pytest.raises(ModelError, match=r"needs captum: pip install 'whydrift\[neural\]'"):
        explainer(network())


def test_other_models_do_not_load_torch():
    class Plain:
        def predict(self, rows):
            return rows["a"].to_numpy()

    with pytest.raises(ModelError, match="Plain is no PyTorch module"):
        explainer(Plain(), "regression", "deep_lift")


def test_the_deployed_module_is_left_alone():
    model = network().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    explainer(model).explain(FEW[:2])
    assert model.training
    assert all(
        value.dtype == torch.float32 and torch.equal(value, before[n]) for n, value in model.state_dict().items()
    )
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert not any(module._forward_hooks or module._backward_hooks for module in model.modules())
