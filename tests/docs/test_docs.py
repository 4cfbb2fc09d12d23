"""Documentation that is checked: commands, schemas, the wheel, and the layers' limits on size."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

from whydrift.pipelines import cli, config
from whydrift.pipelines.schemas import SCHEMAS

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SOURCES = sorted(
    p for folder in ("monitors", "pipelines", "dags", "demo", "tests") for p in (ROOT / folder).rglob("*.py")
)


def test_readme_lists_every_command_with_its_help():
    block = README.split("<!-- commands", 1)[1].split("<!-- /commands", 1)[0]
    told = dict(re.findall(r"^\| `whydrift (\w+)` \| (.+) \|$", block, re.MULTILINE))
    assert told == {name: command.help.splitlines()[0] for name, command in cli.whydrift.commands.items()}


def test_readme_example_is_a_valid_configuration(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    (example,) = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    path = tmp_path / "churn.yaml"
    path.write_text(example, encoding="utf-8")
    assert config.load(path).model.name == "churn"


def test_links_and_pictures_of_the_readme_exist():
    targets = re.findall(r"\]\(([^)#]+)\)", README)
    assert "docs/report.png" in targets
    assert [t for t in targets if not (ROOT / t).exists()] == []


@pytest.mark.parametrize("name", SCHEMAS)
def test_committed_schema_is_current(name):
    assert (ROOT / "configs" / name).read_text(encoding="utf-8") == SCHEMAS[name]()


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda p: p.name)
def test_every_config_is_valid_and_names_its_schema(path):
    assert path.read_text(encoding="utf-8").startswith("# yaml-language-server: $schema=schema.json\n")
    assert config.load(path).model.name == yaml.safe_load(path.read_text(encoding="utf-8"))["model"]["name"]


@pytest.mark.slow
def test_wheel_has_one_top_level_name_and_carries_its_data(tmp_path):
    uv = Path(sys.executable).with_name("uv")
    subprocess.run([uv, "build", "--quiet", "--wheel", "--out-dir", tmp_path, ROOT], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {n.split("/")[0] for n in names if ".dist-info/" not in n} == {"whydrift"}
    assert "whydrift/pipelines/outputs/report.html.j2" in names
    assert not [n for n in names if n == "whydrift/__init__.py"]


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_and_functions_stay_small(path):
    text = path.read_text(encoding="utf-8")
    long = [
        f"{node.name} has {node.end_lineno - node.lineno + 1} lines"
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno - node.lineno + 1 > 60
    ]
    assert long == []
    assert len(text.splitlines()) <= 400


def test_dags_import_nothing_heavy():
    allowed = {"airflow", "yaml", *sys.stdlib_module_names}
    own = {p.stem for p in (ROOT / "dags").glob("*.py")}
    for path in (ROOT / "dags").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            for name in names:
                assert name.split(".")[0] in allowed | own, f"{path.name} imports {name}"
                if name.startswith("airflow"):
                    assert name.startswith(("airflow.sdk", "airflow.providers.standard")), f"{path.name}: {name}"
