"""A model explained in a process of its own: the same bits as in this one, and what happens when it goes wrong."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xgboost
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import odd_model
from whydrift.pipelines.errors import ModelError
from whydrift.pipelines.explainers.choose import choose
from whydrift.pipelines.explainers.process import Worker
from whydrift.pipelines.explainers.second import second_opinion
from whydrift.pipelines.loading import load_native

PYTHON = Path(sys.executable)
FEATURES = ["kind", "x", "y"]
RNG = np.random.default_rng(4)
ROWS = pd.DataFrame(
    {"x": RNG.normal(size=300), "y": RNG.integers(0, 9, 300), "kind": RNG.choice(["a", "b", "c"], 300)},
)
ROWS.loc[::11, "x"] = np.nan
VALUE = np.nan_to_num(ROWS["x"]) * ROWS["y"] + (ROWS["kind"] == "a")
LABEL = np.greater(VALUE, np.median(VALUE)).astype(int)
CLASS = pd.qcut(VALUE, 3, labels=False)
BACKGROUND = ROWS[FEATURES].head(6)
FEW = ROWS[FEATURES].tail(5).reset_index(drop=True)


def categorical(rows):
    return rows[FEATURES].assign(kind=pd.Categorical(rows["kind"]))


def trees(model, target):
    return model(n_estimators=15, max_depth=3, enable_categorical=True).fit(categorical(ROWS), target)


def pipeline():
    encoder = ColumnTransformer([("n", StandardScaler(), ["y"]), ("k", OneHotEncoder(), ["kind"])])
    return make_pipeline(encoder, LogisticRegression()).fit(ROWS, LABEL)


def histogram():
    encoder = ColumnTransformer([("k", OneHotEncoder(), ["kind"])], remainder="passthrough", sparse_threshold=0)
    return make_pipeline(encoder, HistGradientBoostingRegressor(max_iter=10)).fit(ROWS, VALUE)


CLASSES = {"classes": ("low", "middle", "high")}
MODELS = {
    "xgboost": ("xgboost", lambda: trees(xgboost.XGBClassifier, LABEL), {"task": "binary"}),
    "multiclass": ("xgboost", lambda: trees(xgboost.XGBClassifier, CLASS), {"task": "multiclass", **CLASSES}),
    "linear": ("sklearn", pipeline, {"task": "binary"}),
    "trees": ("sklearn", histogram, {"task": "regression"}),
}


@pytest.fixture(scope="module", params=MODELS)
def case(request, tmp_path_factory):
    """The model of this process, the worker with the same one, and what an explainer is made with."""
    import mlflow

    flavour, train, settings = MODELS[request.param]
    folder = tmp_path_factory.mktemp("model") / "model"
    plain = {} if flavour == "xgboost" else {"serialization_format": "cloudpickle"}
    getattr(mlflow, flavour).save_model(
        train(), folder, signature=signature(ROWS), pip_requirements=["numpy", "Scikit_Learn"], **plain
    )
    worker = Worker(PYTHON, folder)
    yield load_native(folder), worker, {**settings, "features": FEATURES, "background": BACKGROUND}
    worker.close()


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """The folder of a model that does what its rows say."""
    import mlflow

    folder = tmp_path_factory.mktemp("odd") / "model"
    code = Path(odd_model.__file__)
    rows = ROWS[["x", "kind"]]
    with pytest.warns(UserWarning, match="input example"):
        mlflow.pyfunc.save_model(folder, python_model=code, signature=signature(rows), pip_requirements=["numpy"])
    return folder


def explainer_of(worker):
    return worker.choose(background=BACKGROUND.head(3), features=["x", "kind"], method="auto", task="regression")


KEYS = ("MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_PASSWORD", "AWS_SECRET_ACCESS_KEY", "UV_INDEX_URL")


@pytest.fixture(scope="module")
def odd_explainer(odd):
    with pytest.MonkeyPatch.context() as patch:
        for name in KEYS:
            patch.setenv(name, "https://me:secret@server")
        patch.setenv("OMP_NUM_THREADS", "1")
        worker = Worker(PYTHON, odd)
    yield explainer_of(worker)
    worker.close()


def signature(rows):
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    return ModelSignature(Schema([ColSpec("string" if name == "kind" else "double", name) for name in rows]))


def row(x):
    return pd.DataFrame({"x": [x], "kind": ["b"]})


def same(one, other):
    """Equal in every bit, shape and type."""
    for a, b in zip((one.values, one.output), (other.values, other.output), strict=True):
        assert (a.shape, a.dtype, a.tobytes()) == (b.shape, b.dtype, b.tobytes())
    assert (one.error is None) == (other.error is None)
    assert one.error is None or one.error.tobytes() == other.error.tobytes()
    assert np.array(one.base).tobytes() == np.array(other.base).tobytes()
    assert type(one.base) is type(other.base)


@pytest.mark.parametrize("method", ["auto", "permutation"])
def test_every_bit_is_that_of_this_process(case, method):
    model, worker, settings = case
    here = choose(model, method=method, **settings)
    there = worker.choose(method=method, **settings)
    assert (there.name, there.link) == (here.name, here.link)
    other_types = FEW.head(2).assign(y=FEW["y"].astype("Int64")).astype({"kind": "string"})
    for rows in (FEW, FEW.head(0), other_types):
        same(there.explain(rows), here.explain(rows))


def test_the_second_opinion_is_that_of_this_process(case):
    model, worker, settings = case
    link = "softmax" if settings["task"] == "multiclass" else "identity"
    asked = {"first": "linear", "link": link, **settings}
    here, there = second_opinion(model, **asked), worker.second_opinion(**asked)
    assert (there.name, there.link) == ("permutation", link)
    explanation = there.explain(FEW)
    same(explanation, here.explain(FEW))
    assert np.all(np.isfinite(explanation.error))


def test_parameters_name_the_versions_that_the_worker_has(case):
    import sklearn

    model, worker, settings = case
    here, there = choose(model, method="auto", **settings), worker.choose(method="auto", **settings)
    own = dict(there.parameters)
    environment = own.pop("environment")
    assert own == here.parameters
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert environment.startswith(f"python {version}, mlflow ")
    assert environment.endswith(f", numpy {np.__version__}, scikit-learn {sklearn.__version__}")


def test_a_refusal_is_the_same_error_and_the_worker_lives_on(case):
    model, worker, settings = case
    wrong = "linear" if isinstance(model, xgboost.XGBClassifier) else "native"
    with pytest.raises(ModelError, match=f"no {wrong} explainer") as here:
        choose(model, method=wrong, **settings)
    with pytest.raises(ModelError) as there:
        worker.choose(method=wrong, **settings)
    assert str(there.value) == str(here.value)
    explainer = worker.choose(method="auto", **settings)
    with pytest.raises(ModelError, match="needs the features kind, and the rows do not have them"):
        explainer.explain(FEW.drop(columns="kind"))
    assert len(explainer.explain(FEW).values) == len(FEW)


def test_what_is_neither_number_nor_text_is_named(case):
    _, worker, settings = case
    explainer = worker.choose(method="auto", **settings)
    with pytest.raises(ModelError, match="'kind' holds something that is neither"):
        explainer.explain(FEW.head(1).assign(kind=[object()]))


def test_a_model_that_prints_and_reads_does_not_disturb(odd_explainer, caplog):
    with caplog.at_level("INFO"):
        assert odd_explainer.explain(row(3.0)).output.tolist() == [7.0]
        until = time.monotonic() + 10
        while "fetched" not in caplog.text and time.monotonic() < until:
            time.sleep(0.05)
    for said in ("printed by the model", "written to fd 1", "fetched https://index.example/simple"):
        assert said in caplog.text
    assert "secret" not in caplog.text


def test_a_row_that_the_model_refuses(odd_explainer):
    with pytest.raises(ModelError, match="this row is not for me"):
        odd_explainer.explain(row(odd_model.REFUSE))
    assert odd_explainer.explain(row(1.0)).output.tolist() == [3.0]


def test_no_key_reaches_the_worker(odd_explainer):
    with pytest.raises(ModelError, match="OMP_NUM_THREADS") as said:
        odd_explainer.explain(row(odd_model.ENVIRONMENT))
    assert not [name for name in KEYS if name in str(said.value)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("x", "words"),
    [
        (odd_model.EXIT, "ended with exit code 7"),
        (odd_model.KILL, "was killed by SIGKILL, as happens where memory runs out"),
        (odd_model.BUG, "ended with exit code 1"),
    ],
)
def test_a_worker_that_dies_says_how(odd, x, words):
    explainer = explainer_of(Worker(PYTHON, odd))
    begun = time.monotonic()
    for _ in range(2):  # and stays dead
        with pytest.raises(ModelError, match=words) as died:
            explainer.explain(row(x))
        last = "ZeroDivisionError: the model has a bug" if x == odd_model.BUG else "https://index.example/simple"
        assert str(died.value).endswith(last)
        assert "secret" not in str(died.value)
    assert time.monotonic() - begun < 50  # a child that lives on keeps nobody waiting


def test_a_model_that_cannot_be_loaded(odd, tmp_path):
    shutil.copytree(odd, tmp_path / "broken")
    (tmp_path / "broken" / "odd_model.py").write_text("import no_such_library\n")
    with pytest.raises(ModelError, match=r"the model cannot be loaded: .*no_such_library"):
        Worker(PYTHON, tmp_path / "broken")


_PARENT = """
import sys
import pandas as pd
from pathlib import Path
from whydrift.pipelines.explainers.process import Worker
worker = Worker(Path(sys.executable), Path(sys.argv[1]))
rows = pd.DataFrame({"x": [1.0, 2.0], "kind": ["a", "b"]})
explainer = worker.choose(background=rows, features=["x", "kind"], method="auto", task="regression")
print(worker._process.pid, flush=True)
if sys.argv[2] == "busy":
    explainer.explain(rows.assign(x=float(sys.argv[3])))
sys.stdin.read()
"""


@pytest.mark.slow
@pytest.mark.parametrize("doing", ["busy", "idle"])
def test_a_worker_ends_with_its_parent(odd, doing):
    parent = subprocess.Popen(
        [PYTHON, "-c", _PARENT, odd, doing, str(odd_model.SLEEP)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    pid = int(parent.stdout.readline())
    time.sleep(0.5)
    assert alive(pid)
    parent.kill()
    parent.wait()
    until = time.monotonic() + 10
    while alive(pid) and time.monotonic() < until:
        time.sleep(0.1)
    assert not alive(pid)
    parent.stdin.close()
    parent.stdout.close()


def alive(pid):
    """Whether a process runs; one that only waits to be collected does not."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False).stdout
    return bool(state.strip()) and not state.startswith("Z")


def test_what_the_worker_imports_of_ours_and_of_others():
    code = (
        "import json, sys; import whydrift.pipelines.explainers.worker;"
        " print(json.dumps([m for m in sys.modules if m != '__main__']))"
    )
    done = subprocess.run([PYTHON, "-c", code], capture_output=True, text=True, check=True)
    modules = json.loads(done.stdout)
    assert not {"click", "pydantic", "yaml", "prometheus_client", "jinja2", "matplotlib", "mlflow", "shap"} & set(
        modules
    )
    ours = {m for m in modules if m.startswith("whydrift.") and not m.startswith("whydrift.pipelines.explainers")}
    assert ours == {
        "whydrift.monitors",
        "whydrift.monitors.links",
        "whydrift.pipelines",
        "whydrift.pipelines.errors",
        "whydrift.pipelines.loading",
    }
