"""What is public, and what shape it has."""

import inspect
import subprocess
import sys

import pytest

import finetune_eval as fe


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
        named = [p for p in inspect.signature(thing).parameters.values() if p.kind != p.VAR_POSITIONAL]
        for parameter in named:
            assert f"{parameter.name}" in text.split("Args:")[1], f"{name}({parameter.name}) is not described"


def test_the_package_has_its_version_and_types():
    from importlib.metadata import version
    from pathlib import Path

    assert fe.__version__ == version("finetune-eval")
    assert (Path(fe.__file__).parent / "py.typed").exists()


def test_import_loads_no_framework():
    code = (
        "import finetune_eval, sys;"
        "assert not {'tensorflow', 'keras', 'pandas', 'scipy', 'sklearn', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
