"""Which way imports may run: held by reading them, so that a stage can be changed without its neighbours."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "finetune_eval"
BASE = {"_checks", "_cores", "_text", "_files", "_rows", "_columns", "_pairs", "_names", "_labels"}
# Who may import whom. `data`, `evaluation`, `traces`: leaves without TensorFlow that every stage may use.
ALLOWED = {
    "_checks": set(),
    "_cores": set(),
    "_text": set(),
    "_files": set(),
    "_rows": set(),
    "_columns": {"_checks", "_rows", "_names", "_text"},
    "_pairs": {"_columns", "_rows"},
    "_names": {"_rows"},
    "_labels": {"_checks", "_rows", "_names", "_text"},
    "runs": {"_checks", "_files", "_pairs"},
    "data": {*BASE, "data"},
    "traces": {*BASE, "traces"},
    "evaluation": {*BASE, "runs", "data", "evaluation"},
    "reports": {*BASE, "data", "traces", "evaluation", "reports"},
    "models": {*BASE, "runs", "data", "traces", "evaluation", "models"},
    "training": {*BASE, "runs", "data", "traces", "evaluation", "models", "training"},
    "studies": {*BASE, "runs", "data", "traces", "evaluation", "models", "training", "studies"},
    "commands": {
        *(*BASE, "runs", "data", "traces", "evaluation", "models", "training", "studies", "reports"),
        "commands",
    },
    "engines": {*BASE, "runs", "evaluation"},
    "cli": {"reports", "commands"},
    "__init__": set(),
}
HEAVY = {"tensorflow", "keras", "keras_hub", "keras_nlp", "tensorflow_text"}
MAY_IMPORT_KERAS = {"models", "training"}
MODULES = sorted(PACKAGE.rglob("*.py"))


def imported(path):
    """Yield every import of a file: the module, and whether it stands in a function or for type checkers."""

    def visit(node, where):
        for child in ast.iter_child_nodes(node):
            inside = where
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
                inside = "types"
            elif isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
                inside = child.name
            if isinstance(child, ast.Import):
                yield from ((alias.name, where) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{path}: imports are absolute"
                yield child.module, where
                yield from ((f"{child.module}.{alias.name}", where) for alias in child.names)
            yield from visit(child, inside)

    yield from visit(ast.parse(path.read_text(encoding="utf-8")), "")


def imports_of(path):
    """Every module imported anywhere in a file, but for what only a type checker reads."""
    return {name for name, where in imported(path) if where != "types"}


def stage_of(path):
    relative = path.relative_to(PACKAGE)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_one_way(path):
    stages = {
        name.split(".")[1]
        for name in imports_of(path)
        if name.startswith("finetune_eval.") and name.split(".")[1] in ALLOWED
    }
    assert stages <= ALLOWED[stage_of(path)]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_models_and_training_import_keras(path):
    heavy = {name.split(".")[0] for name in imports_of(path)} & HEAVY
    assert stage_of(path) in MAY_IMPORT_KERAS or not heavy


def test_only_models_imports_keras_hub():
    users = {stage_of(path) for path in MODULES if any(n.startswith("keras_hub") for n in imports_of(path))}
    assert users == {"models"}


def test_no_catch_all_module():
    assert not {path.stem for path in MODULES} & {"utils", "helpers", "common", "misc"}


def test_importing_the_package_and_every_light_stage_loads_no_tensorflow():
    light = [
        "finetune_eval." + ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        for path in MODULES
        if stage_of(path) not in MAY_IMPORT_KERAS | {"__init__"} and path.stem != "__init__"
    ]
    code = (
        "import importlib, sys, finetune_eval\n"
        f"for name in {light!r}: importlib.import_module(name)\n"
        "print(*sorted({'tensorflow', 'keras', 'keras_hub'} & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == ""


# What the statistics of one model are made of; each module may use those before it.
STATISTICS = (
    *("records", "_limits", "confusion", "losses", "units", "proportions", "resampling", "shares", "means"),
    *("precision_bias", "rankings", "cells", "tables", "sample", "scores", "metrics", "intervals"),
)


@pytest.mark.parametrize("name", STATISTICS)
def test_statistics_are_built_one_upon_the_other(name):
    inside = "finetune_eval.evaluation"
    found = imports_of(PACKAGE / "evaluation" / f"{name}.py")
    used = {part.split(".")[2] for part in found if part.startswith(f"{inside}.")}
    assert used <= set(STATISTICS[: STATISTICS.index(name)])


# What is said of an evaluation is made above the record, and only `print` needs it.
DOWN_FROM_ABOVE = {("finetune_eval.evaluation._result", "finetune_eval.evaluation._summary")}


def name_of(path):
    return ".".join(("finetune_eval", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(
        ".__init__"
    )


def circles(edges):
    """Groups of files that import one another, by Tarjan 1972; `edges` maps a file to those it imports."""
    index, low, stack, found = {}, {}, [], []

    def visit(one):
        index[one] = low[one] = len(index)
        stack.append(one)
        for other in sorted(edges[one]):
            if other not in index:
                visit(other)
            if other in stack:
                low[one] = min(low[one], low[other])
        if low[one] == index[one]:
            group = stack[stack.index(one) :]
            del stack[stack.index(one) :]
            if len(group) > 1:
                found.append(sorted(group))

    for one in sorted(edges):
        if one not in index:
            visit(one)
    return found


def test_a_circle_is_found():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}) == [["b", "c"]]
    assert circles({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def packages_of(name):
    """The packages that a module is in, but for the library itself, whose public names are lazy."""
    parts = name.split(".")
    return {".".join(parts[:length]) for length in range(2, len(parts))}


def test_no_circle_of_files():
    """Imports for type checkers and in functions count; so does a package, whose `__init__` runs first."""
    names = {name_of(path) for path in MODULES} - {"finetune_eval"}
    edges = {}
    for path in MODULES:
        name = name_of(path)
        used = {other for other, _ in imported(path)} & names
        used |= {package for other in used for package in packages_of(other)} - {name}
        edges[name] = {other for other in used if (name, other) not in DOWN_FROM_ABOVE}
    assert circles({name: edges[name] for name in names}) == []


def test_functions_import_nothing_of_ours():
    """Only the commands do, and the studies: both start without TensorFlow."""
    files = {name_of(path) for path in MODULES if path.stem != "__init__"}
    found = {
        (name_of(path), name)
        for path in MODULES
        for name, where in imported(path)
        if where not in ("", "types")
        and name in files
        and stage_of(path) not in ("cli", "commands", "studies")
    }
    assert found == DOWN_FROM_ABOVE


MOST_LINES, MOST_BODY = 500, 60


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_and_functions_can_be_read_at_once(path):
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MOST_LINES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            body = node.body[1:] if ast.get_docstring(node) is not None else node.body
            assert not body or body[-1].end_lineno - body[0].lineno < MOST_BODY, node.name


def targets(tree):
    """Yield what a file assigns to, deletes, or sets by name."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.Attribute, ast.Name)) and isinstance(node.ctx, (ast.Store, ast.Del)):
            yield node
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "setattr":
            yield ast.Attribute(node.args[0], getattr(node.args[1], "value", "_"))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_private_attributes_are_set_by_their_owner_alone(path):
    """A model's above all: how it computes is set by `model.computing(plan)`, which puts it back."""
    if stage_of(path) == "models":
        return
    for target in targets(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(target, ast.Attribute) and str(target.attr).startswith("_"):
            assert isinstance(target.value, ast.Name) and target.value.id in ("self", "cls"), target.attr


# What holds words for a person, which may not decide anything. (A variable `method` may be an argument.)
SHOWN = {"verdict", "method", "observation", "note", "title", "meaning", "sentence", "text"}
SHOWN_NAMES = {"verdict", "observation", "sentence", "said"}


def is_shown(node):
    if isinstance(node, ast.Attribute):
        return node.attr in SHOWN
    return isinstance(node, ast.Name) and node.id in SHOWN_NAMES


def decided_by_words(tree):
    """Yield the comparisons of a file of what is shown with words, and the searches for words in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            words = [side.value for side in sides if isinstance(side, ast.Constant)]
            in_method = isinstance(node.ops[0], (ast.In, ast.NotIn)) and ast.unparse(sides[1]) == "method"
            if any(isinstance(word, str) and word for word in words):
                if in_method or any(map(is_shown, sides)):
                    yield ast.unparse(node)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and is_shown(node.func.value):
            if node.func.attr in ("startswith", "endswith", "partition", "count", "find", "index"):
                yield ast.unparse(node)


def test_words_that_decide_are_found():
    code = "'few' in made.method; 'few' in method; said.startswith('Another'); text == 'a'; method == 'wald'"
    found = ["'few' in made.method", "'few' in method", "said.startswith('Another')"]
    assert sorted(decided_by_words(ast.parse(code))) == found


def test_no_branch_reads_what_is_shown():
    found = {
        (name_of(path), what)
        for path in MODULES
        for what in decided_by_words(ast.parse(path.read_text(encoding="utf-8")))
    }
    assert found == set()
