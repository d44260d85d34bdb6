"""Write docs/api.md: every public name of every module, with its arguments and the first sentence about it.

A name is public where a module lists it in `__all__`; the source is read, and nothing is imported.

python docs/make_api.py          # or: make api
"""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "finetune_eval"
PAGE = ROOT / "docs" / "api.md"
HEAD = """# What is public

Made by `make api` from the source; a test fails where this page is out of date. Names that are not here may
change without notice. `help(name)` describes each argument of a function, with an example.
"""


def name_of(path: Path) -> str:
    """Return the name of the module in a file."""
    return ".".join((PACKAGE.name, *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(
        ".__init__"
    )


def public(tree: ast.Module) -> list[str]:
    """Return what a module lists in `__all__`."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return list(ast.literal_eval(node.value))
    return []


def defined(name: str, module: str, trees: dict[str, ast.Module]) -> ast.AST | None:
    """Return the definition of a name: in the module itself, or where it imports the name from."""
    for node in ast.walk(trees[module]):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name == name:
            return node
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and isinstance(
            node.value, (ast.Constant, ast.Tuple)
        ):
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            if isinstance(target, ast.Name) and target.id == name:
                return node.value
        if isinstance(node, ast.ImportFrom) and node.module in trees:
            if any(name == (alias.asname or alias.name) for alias in node.names):
                return defined(name, node.module, trees)
    return None


def signature(node: ast.AST) -> str:
    """Return the arguments of a function as they are written, without their types."""
    if not isinstance(node, ast.FunctionDef):
        return ""
    given = node.args
    for argument in (*given.args, *given.kwonlyargs, given.vararg):
        if argument is not None:
            argument.annotation = None
    return f"({ast.unparse(given)})"


def sentence(node: ast.AST | None) -> str:
    """Return the first paragraph of a docstring, or a constant's value."""
    if isinstance(node, (ast.Constant, ast.Tuple)):
        return f"`{ast.unparse(node)}`."
    text = ast.get_docstring(node) if isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.Module)) else None
    return " ".join((text or "A constant; the source has its value.").split("\n\n")[0].split())


def page() -> str:
    """Return the whole page."""
    trees = {name_of(path): ast.parse(path.read_text("utf-8")) for path in sorted(PACKAGE.rglob("*.py"))}
    everywhere = public(trees[PACKAGE.name])  # named once, where a user imports them from
    parts = [HEAD]
    for module, tree in trees.items():
        names = [name for name in public(tree) if module == PACKAGE.name or name not in everywhere]
        if not names or any(part.startswith("_") for part in module.split(".")):
            continue
        lines = [f"## `{module}`", "", sentence(tree), ""]
        for name in names:
            node = defined(name, module, trees)
            arguments = "" if node is None else signature(node)
            lines.append(f"- `{name}{arguments}`: {sentence(node)}")
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
