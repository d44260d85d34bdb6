"""A data set that every installation can make: which library does this sentence document?

    python benchmarks/docstrings.py            # counts, a sentence of each, and a hash of the rows

The sentences come from the docstrings of packages that constraints.txt pins, so the rows are the same
wherever those versions are installed. Source files are parsed, never imported.
"""

from __future__ import annotations

import ast
import hashlib
import re
import textwrap
from importlib.util import find_spec
from pathlib import Path

import pandas as pd

# What a library is called in its own documentation; a sentence with such a word would give its label away.
LIBRARIES = {
    "keras": ("keras", "tensorflow", "tf", "jax", "torch", "pytorch", "openvino"),
    "matplotlib": ("matplotlib", "mpl", "pyplot", "plt", "pylab", "mplot3d"),
    "numpy": ("numpy", "np", "numpy's", "ufunc", "ufuncs", "numpydoc"),
    "pandas": ("pandas", "pd", "pyarrow", "dataframe", "dataframes"),
    "scipy": ("scipy", "sp", "fitpack", "quadpack", "superlu"),
    "sklearn": ("sklearn", "scikit", "scikit-learn", "libsvm", "liblinear"),
}
PER_LIBRARY = 800
_WORDS = (6, 60)  # in a sentence
_SECTION = re.compile(
    r"^\s*(Parameters|Args?|Arguments|Returns?|Yields|Raises|Examples?|Notes?|References?|See Also|"
    r"Attributes|Methods|Call arguments|Input shape|Output shape|Usage|Warnings?|Other Parameters|"
    r"Keyword Args|\.\. \w.*):?\s*$"
)
_END = re.compile(r"(?<=[a-z)'`][.!?])\s+(?=[A-Z`])")
_NAMES = {word for words in LIBRARIES.values() for word in words}


def sentences() -> pd.DataFrame:
    """Return 800 sentences of each of six libraries: columns "text" and "label", always in the same order."""
    found: dict[str, dict[str, str]] = {}  # normalised text -> library -> text
    for library in LIBRARIES:
        for docstring in _docstrings(library):
            for sentence in _prose(docstring):
                found.setdefault(sentence.casefold(), {})[library] = sentence
    rows: dict[str, list[str]] = {library: [] for library in LIBRARIES}
    for texts in found.values():
        if len(texts) == 1:  # what two libraries say tells nothing
            [(library, text)] = texts.items()
            rows[library].append(text)
    frames = []
    for library, texts_of in rows.items():
        texts_of.sort(key=lambda text: hashlib.sha256(text.encode()).digest())  # a draw, but always the same
        if len(texts_of) < PER_LIBRARY:
            raise ValueError(f"{library} gives {len(texts_of)} sentences; {PER_LIBRARY} are needed.")
        frames.append(pd.DataFrame({"text": texts_of[:PER_LIBRARY], "label": library}))
    return pd.concat(frames, ignore_index=True)


def _docstrings(library: str) -> list[str]:
    spec = find_spec(library)
    if spec is None or spec.origin is None:
        raise ImportError(f"{library} is not installed; `make` installs what constraints.txt pins.")
    found = []
    for file in sorted(Path(spec.origin).parent.rglob("*.py")):
        if {"tests", "_vendor", "externals"} & set(file.parts) or file.name.startswith("test_"):
            continue
        try:
            tree = ast.parse(file.read_text(encoding="utf-8"))
        except (SyntaxError, UnicodeDecodeError):  # templates
            continue
        for node in ast.walk(tree):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                found.append(ast.get_docstring(node, clean=True) or "")
    return found


def _prose(docstring: str) -> list[str]:
    """Return the sentences above the first section, markup and lists left out."""
    lines: list[str] = []
    for line in docstring.splitlines():
        if _SECTION.match(line) or re.match(r"^\s*[-=~^]{3,}\s*$", line):
            break
        lines.append(line)
    out = []
    for block in re.split(r"\n\s*\n", "\n".join(lines)):
        if re.search(r">>>|```|^\s*(\.\. |[-*] |\d+[.)] |\|)|::\s*$", block, re.MULTILINE):
            continue
        plain = re.sub(r":\w+:`~?([^`<]*)(<[^`]*>)?`", r"\1", " ".join(block.split()))
        plain = plain.replace("`", "").replace("*", "").replace("_", " ")
        for sentence in _END.split(plain):
            words = re.findall(r"[\w'-]+", sentence.casefold())
            named = any(word in _NAMES for word in [*words, *re.split(r"\W+", sentence.casefold())])
            if _WORDS[0] <= len(words) <= _WORDS[1] and not named and sentence[-1:] in ".!?":
                out.append(sentence)
    return out


def main() -> None:
    frame = sentences()
    print(frame["label"].value_counts(sort=False).to_string())
    for library, rows in frame.groupby("label"):
        print(textwrap.shorten(f"{library}: {rows['text'].iloc[0]}", 100))
    words = frame["text"].str.split().str.len()
    digest = hashlib.sha256("\n".join(frame["text"] + "\t" + frame["label"]).encode()).hexdigest()
    print(f"{len(frame):,} rows, {words.mean():.1f} words a row, {words.max()} at most; sha256 {digest[:16]}")


if __name__ == "__main__":
    main()
