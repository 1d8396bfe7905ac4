"""The package from outside: importing it costs nothing, its names are there, and what its pages tell people to type runs."""

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import jax
import pytest

import polyact
from polyact.app.commands.demo import write_logs
from polyact.envs.point_navigation import PointNavigation

ROOT = Path(__file__).parent.parent
PAGES = ["README.md", *sorted(f"docs/{path.relative_to(ROOT / 'docs')}" for path in (ROOT / "docs").rglob("*.md"))]
PYTHON = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


def test_importing_polyact_loads_nothing_heavy():
    code = (
        "import sys, time, importlib, typing\n"
        "began = time.process_time()\n"
        "import polyact\n"
        "print(time.process_time() - began, *sorted({'jax', 'numpy', 'equinox', 'tyro', 'rich'} & set(sys.modules)))"
    )
    seconds, *loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not loaded
    assert float(seconds) < 0.1


def test_every_public_name_resolves_to_something_of_polyact():
    for name in polyact.__all__:
        assert getattr(polyact, name).__module__.startswith("polyact."), name
        assert name in dir(polyact)


def test_type_checkers_and_the_interpreter_see_the_same_names():
    source = ast.parse(Path(polyact.__file__).read_text("utf-8"))
    (branch,) = [node for node in source.body if isinstance(node, ast.If)]
    seen = {
        alias.asname: getattr(importlib.import_module(node.module), alias.name)
        for node in branch.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == {name: getattr(polyact, name) for name in polyact.__all__}


def test_the_version_is_the_installed_one():
    assert polyact.__version__ == importlib.import_module("importlib.metadata").version("polyact")


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'fitt'"):
        _ = polyact.fitt


@pytest.fixture
def somewhere(tmp_path, monkeypatch):
    """A working folder that holds what `polyact demo` leaves."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "polyact-demo").mkdir()
    write_logs(PointNavigation(), tmp_path / "polyact-demo" / "logs", jax.random.key(0))
    return tmp_path


@pytest.mark.filterwarnings("ignore:left out of training")
@pytest.mark.parametrize("page", [page for page in PAGES if PYTHON.search((ROOT / page).read_text("utf-8"))])
def test_the_python_on_a_page_runs(page, somewhere, capsys):
    names: dict = {}
    for number, block in enumerate(PYTHON.findall((ROOT / page).read_text("utf-8"))):
        exec(compile(block, f"{page}, block {number + 1}", "exec"), names)
    assert names


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_links_to_exists(page):
    text = (ROOT / page).read_text("utf-8")
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", text):
        assert ((ROOT / page).parent / target).exists(), target
