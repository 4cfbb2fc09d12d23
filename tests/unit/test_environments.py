"""What an environment is made of, and what is said where it cannot be made; nothing here needs an index."""

from __future__ import annotations

import platform
import sys
from importlib.metadata import version

import pytest
import yaml

from whydrift.pipelines import environments, loading
from whydrift.pipelines.environments import interpreter
from whydrift.pipelines.errors import ModelError, StoreError

PYTHON = platform.python_version()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Where environments are kept; uv reaches no index, and tries once."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "uv"))
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://me:secret@127.0.0.1:9/simple")
    for name in ("UV_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL", "UV_FIND_LINKS"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "cache" / "whydrift" / "environments"


@pytest.fixture
def model(tmp_path):
    """A model's folder with what it records."""

    def make(*requirements, python=PYTHON, flavour="xgboost"):
        folder = tmp_path / "model"
        folder.mkdir(exist_ok=True)
        (folder / "requirements.txt").write_text("\n".join(requirements) + "\n")
        (folder / "python_env.yaml").write_text(yaml.safe_dump({"python": python}))
        (folder / "MLmodel").write_text(yaml.safe_dump({"flavors": {flavour: {}, "python_function": {}}}))
        return folder

    return make


def left(cache):
    return [path for path in cache.iterdir() if path.suffix != ".lock"]


def test_an_index_that_does_not_answer_is_worth_a_retry(cache, model):
    with pytest.raises(StoreError, match="uv could not get the libraries") as error:
        interpreter(model("six"))
    assert "127.0.0.1:9/simple" in str(error.value)
    assert "secret" not in str(error.value)
    assert left(cache) == []


def test_requirements_that_cannot_be_met_are_not(cache, model, monkeypatch):
    monkeypatch.setenv("UV_OFFLINE", "1")
    with pytest.raises(ModelError, match=r"update_model_requirements.*explainer\.environment to inherit") as error:
        interpreter(model("six==99.1"))
    assert "six" in str(error.value)
    assert left(cache) == []


def test_a_model_without_requirements(cache, tmp_path):
    with pytest.raises(ModelError, match=r"records no requirements.txt"):
        interpreter(tmp_path)


def test_a_folder_that_cannot_be_written(model, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(StoreError, match="XDG_CACHE_HOME names another folder"):
        interpreter(model("six"))


@pytest.mark.parametrize("python", ["3.9.4", "3.47.1"])
def test_an_interpreter_that_is_not_here_is_said(cache, model, python, caplog):
    with pytest.raises(StoreError):
        interpreter(model("six", python=python))
    assert f"recorded with Python {python}" in caplog.text
    assert f"gets Python {PYTHON}" in caplog.text


def test_each_recipe_has_a_place_of_its_own(cache, model):
    """The lock of a place carries its name, also where making it fails."""

    def places(*requirements, constraints="", **recipe):
        folder = model(*requirements, **recipe)
        (folder / "constraints.txt").write_text(constraints)
        with pytest.raises((StoreError, ModelError)):
            interpreter(folder)
        return len(list(cache.glob("*.lock")))

    assert places("six") == 1
    assert places("six", flavour="sklearn") == 2  # numba and shap come with it
    assert places("six", "numpy==2.0.0") == 3
    assert places("six", constraints="six<1.17") == 4
    assert places("six") == 4


def test_only_what_the_model_does_not_name_is_added(model):
    minimum = ["mlflow-skinny", "numpy", "pandas", "pyarrow<26", "scipy"]
    assert environments._added(model("xgboost")) == [*minimum, "numba"]
    assert environments._added(model("mlflow==2.9", "NumPy<2", "pyarrow==26.0.1", flavour="sklearn")) == [
        *("pandas", "scipy", "numba", "shap")
    ]


def test_what_a_folder_records(model):
    folder = model(
        *("mlflow==1.0.0", "numpy[extra] == 1.99.3+local", "pandas>=2"),
        f"Scikit_Learn=={version('scikit-learn')}; x",
        *("", "-c constraints.txt", "# comment", "no.such==3"),
    )
    assert loading.recorded(folder) == {
        "mlflow": "1.0.0",
        "numpy": "1.99.3+local",
        "pandas": None,
        "scikit-learn": version("scikit-learn"),
        "no-such": "3",
    }
    assert loading.differing(folder) == {"numpy": ("1.99.3+local", version("numpy"))}
    assert loading.describe(folder) == ", ".join(
        [f"python {sys.version_info.major}.{sys.version_info.minor}"]
        + [f"{name} {version(name)}" for name in ("mlflow", "numpy", "pandas", "scikit-learn")]
    )
