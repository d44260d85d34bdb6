"""What is public, and what shape it has."""

import ast
import inspect
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import finetune_eval as fe

ROOT = Path(__file__).parent.parent

ROOT = Path(__file__).parent.parent


def test_all_names_are_there_and_sorted():
    assert fe.__all__ == sorted(fe.__all__)
    for name in fe.__all__:
        assert getattr(fe, name).__name__ == name
    assert set(fe.__all__) <= set(dir(fe))


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'fine_tun'"):
        _ = fe.fine_tun


@pytest.mark.parametrize("name", fe.__all__)
def test_at_most_three_positional_arguments(name):
    thing = getattr(fe, name)
    if inspect.isclass(thing):
        pytest.skip("records and callbacks are made by name")
    positional = [
        p
        for p in inspect.signature(thing).parameters.values()
        if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
    ]
    assert len(positional) <= 3


@pytest.mark.parametrize("name", fe.__all__)
def test_every_public_thing_has_a_docstring_with_its_arguments(name):
    thing = getattr(fe, name)
    text = inspect.getdoc(thing)
    assert text and text.splitlines()[0].endswith((".", "?"))
    if inspect.isfunction(thing):
        described = dict(re.findall(r"^    (\*?\w+): (\S.*)$", text.split("Args:\n")[1], flags=re.MULTILINE))
        assert set(inspect.signature(thing).parameters) <= {name.lstrip("*") for name in described}
        assert "Returns:" in text


@pytest.mark.parametrize("name", fe.__all__)
def test_every_keyword_is_spelled_out(name):
    thing = getattr(fe, name)
    if inspect.isfunction(thing):
        kinds = {parameter.kind for parameter in inspect.signature(thing).parameters.values()}
        assert inspect.Parameter.VAR_KEYWORD not in kinds


def test_a_type_checker_sees_the_names_that_are_loaded_later():
    """`if TYPE_CHECKING` imports every public name from where it is loaded: `fe.evaluate(...)` has a type."""
    tree = ast.parse(Path(fe.__file__).read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = {
        alias.name: node.module.removeprefix("finetune_eval.") for node in block.body for alias in node.names
    }
    assert seen == fe._HOME
    (names,) = (
        node.value for node in tree.body if isinstance(node, ast.Assign) and node.targets[0].id == "__all__"
    )
    assert ast.literal_eval(names) == fe.__all__ == sorted(fe._HOME)


def test_the_package_has_its_version_and_types():
    from importlib.metadata import version

    assert fe.__version__ == version("finetune-eval")
    assert (Path(fe.__file__).parent / "py.typed").exists()


def test_import_loads_no_framework():
    code = (
        "import finetune_eval, sys;"
        "assert not {'tensorflow', 'keras', 'pandas', 'scipy', 'sklearn', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_page_of_public_functions_is_up_to_date():
    made = runpy.run_path(str(ROOT / "docs" / "make_api.py"))
    page = made["page"]()
    assert page == made["PAGE"].read_text(encoding="utf-8"), "run `make api`"
    assert "- `split(x, y, *, labels=None," in page
    assert "**" not in page  # every keyword is spelled out
    for name in fe.__all__:
        assert f"- `{name}" in page
