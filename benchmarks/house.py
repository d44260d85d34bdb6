"""Count what makes a package easy or hard to change: sizes, circles of files, hidden imports, private names.

python benchmarks/house.py                       # of this tree
python benchmarks/house.py --tree ../old --rows  # of another one, with the functions that are handed the rows
"""

from __future__ import annotations

import argparse
import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

MOST_LINES, MOST_BODY = 500, 60
KERAS = {"_flatten_layers", "_layers", "_metrics", "_trainable_variables", "_value"}  # names that Keras gives
# `print(evaluation)` needs what is said of an evaluation, which is made above the record.
ALLOWED = {("finetune_eval.evaluation._result", "finetune_eval.evaluation._summary")}
ROWS_ON_THEIR_WAY = """
import sys, tempfile
import numpy as np
import finetune_eval as fe
random = np.random.default_rng(0)
n = 137
y, p = random.integers(0, 3, n), random.dirichlet(np.ones(3), n)
texts = [f"film {i} {'good' if k else 'bad'}" for i, k in enumerate(y)]
seen, calls = set(), 0
def look(frame, event, argument):
    global calls
    file = frame.f_code.co_filename
    if event != "call" or "finetune_eval/" not in file or frame.f_code.co_name.startswith("<"):
        return
    names = frame.f_code.co_varnames[: frame.f_code.co_argcount + frame.f_code.co_kwonlyargcount]
    if any(getattr(frame.f_locals.get(name), "shape", ()) == (n, 3) for name in names):
        calls += 1
        seen.add((file.split("finetune_eval/")[-1], frame.f_code.co_name))
fe.evaluate_predictions(y, p, texts=texts)  # what is imported or computed once
sys.setprofile(look)
result = fe.evaluate_predictions(y, p, texts=texts)
with tempfile.TemporaryDirectory() as folder:
    fe.report(result, folder + "/r.html")
sys.setprofile(None)
print(calls, len(seen), len({file for file, _ in seen}))
"""


def imports(tree: ast.Module) -> Iterator[tuple[str, bool]]:
    """Yield what a file imports, and whether inside a function."""

    def visit(node: ast.AST, inside: bool) -> Iterator[tuple[str, bool]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                yield from ((alias.name, inside) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                yield from ((f"{child.module}.{alias.name}", inside) for alias in child.names)
                yield str(child.module), inside
            yield from visit(child, inside or isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)))

    yield from visit(tree, False)


def circles(edges: dict[str, set[str]]) -> list[list[str]]:
    """Return groups of files that import one another, themselves or through others."""

    def reached(start: str) -> set[str]:
        found: set[str] = set()
        todo = [start]
        while todo:
            new = edges[todo.pop()] - found
            found |= new
            todo += new
        return found

    ways = {name: reached(name) for name in edges}
    groups = {tuple(sorted(b for b in edges if b in ways[a] and a in ways[b])) for a in edges}
    return [list(group) for group in sorted(groups) if len(group) > 1]


def body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Return the lines of a function without its head and docstring."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return 0 if not body else (body[-1].end_lineno or 0) - body[0].lineno + 1


def private_names(tree: ast.Module) -> set[str]:
    """Return the private names that a file gives to functions, classes, attributes and variables."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found.add(node.name)
        elif isinstance(node, ast.Name):
            found.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self":
            found.add(node.attr)
    return {name for name in found if name.startswith("_") and not name.startswith("__")}


def uses_of_private(tree: ast.Module) -> Iterator[str]:
    """Yield the private attributes that a file reads or sets of anything but `self` and `cls`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr.startswith("_") and not node.attr.startswith("__"):
            if not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")):
                yield node.attr


def count(package: Path) -> dict[str, object]:
    """Return the figures of a package."""
    files = sorted(package.rglob("*.py"))
    names = {
        ".".join((package.name, *file.relative_to(package).with_suffix("").parts)).removesuffix(
            ".__init__"
        ): file
        for file in files
    }
    texts = {name: file.read_text(encoding="utf-8") for name, file in names.items()}
    trees = {name: ast.parse(text) for name, text in texts.items()}
    own = {name: [(m, inside) for m, inside in imports(tree) if m in names] for name, tree in trees.items()}
    # Whoever imports a module has its package's `__init__` run first: that is an import too.
    edges = {
        name: {
            used
            for module, _ in found
            for used in (module, *(p for p in names if module.startswith(f"{p}.")))
            if used not in (name, package.name) and (name, used) not in ALLOWED
        }
        for name, found in own.items()
    }
    functions = [
        (body_lines(node), f"{name}.{node.name}")
        for name, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    ]
    lines = {name: len(text.splitlines()) for name, text in texts.items()}
    any_ = sum(isinstance(n, ast.Name) and n.id == "Any" for tree in trees.values() for n in ast.walk(tree))
    given = {name: private_names(tree) for name, tree in trees.items()}
    private = [
        f"{name}: {attribute}"
        for name, tree in trees.items()
        for attribute in uses_of_private(tree)
        if attribute not in given[name] | KERAS and any(attribute in others for others in given.values())
    ]
    hidden = {(name, m) for name, found in own.items() for m, inside in found if inside}
    code_lines = sum(
        1 for text in texts.values() for line in text.splitlines() if line.strip() and line.strip()[0] != "#"
    )
    docstring_lines = sum(
        len(docstring.splitlines())
        for tree in trees.values()
        for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.Module, ast.AsyncFunctionDef))
        if (docstring := ast.get_docstring(node))
    )
    return {
        "files": len(files),
        "lines": sum(lines.values()),
        "lines of code (no blank lines, comments, docstrings)": code_lines - docstring_lines,
        f"function bodies over {MOST_BODY} lines": sorted(f for f in functions if f[0] > MOST_BODY)[::-1],
        f"modules over {MOST_LINES} lines": sorted(
            ((n, name) for name, n in lines.items() if n > MOST_LINES), reverse=True
        ),
        "circles of files": circles(edges),
        "own imports inside functions": len(hidden),
        "of them outside the commands and studies": len(
            [1 for name, _ in hidden if name.split(".")[1] not in ("cli", "commands", "studies")]
        ),
        "Any": any_,
        "private attributes of ours used from another file": private,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--tree", type=Path, default=Path(__file__).parent.parent, help="the root of a checkout"
    )
    parser.add_argument(
        "--rows", action="store_true", help="follow probabilities from evaluate to the report"
    )
    parser.add_argument("--list", action="store_true", help="name what is counted")
    arguments = parser.parse_args()
    for what, found in count(arguments.tree / "finetune_eval").items():
        print(f"{what:<55}{len(found) if isinstance(found, list) else f'{found:,}':>8}")
        if arguments.list and isinstance(found, list) and found:
            print(*(f"    {one}" for one in found), sep="\n")
    if arguments.rows:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", ROWS_ON_THEIR_WAY],
            env={**os.environ, "PYTHONPATH": str(arguments.tree), "PYTHONSAFEPATH": "1"},
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        calls, functions, files = done.stdout.split()
        print(f"{'calls that are handed the rows of probabilities':<55}{calls:>8}")
        print(f"{'... of so many functions in so many files':<55}{functions + ' in ' + files:>8}")


if __name__ == "__main__":
    main()
