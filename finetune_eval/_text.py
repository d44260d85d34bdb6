"""How words and numbers are written: counted, listed, shortened, wrapped, and safe to print.

Every text that the library prints or puts into an error goes through these functions, so that a p-value, a
count or a long label looks the same everywhere. Widths are those of a terminal: a Chinese character takes two
cells, a
combining mark none.
"""

from __future__ import annotations

import html
import math
import shutil
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from typing import TextIO

from rich.cells import cell_len

WIDTH = 80  # the widest that text is written; a narrower terminal gets narrower text
_NARROWEST = 40
# What joins letters or picks a glyph (Devanagari, Arabic, emoji) is part of the text although it is
# invisible.
_JOINERS = frozenset("\u200c\u200d")


class Shown:
    """What is printed as a text; a notebook shows that text too, where it is the last line of a cell."""

    def _repr_html_(self) -> str:
        return f"<pre>{html.escape(str(self))}</pre>"


def width() -> int:
    """Return the columns to write for: those of the terminal (or COLUMNS), at most 80."""
    return max(_NARROWEST, min(WIDTH, shutil.get_terminal_size((WIDTH, 24)).columns))


def counted(n: int, noun: str) -> str:
    """Return "1 row", "2 rows", "2 rows of values".

    Example:
        >>> counted(1_200, "row of values"), counted(1, "test row")
        ('1,200 rows of values', '1 test row')
    """
    head, of, rest = noun.partition(" of ")
    return f"{n:,} {head}{'' if n == 1 else 's'}{of}{rest}"


def listed(items: Iterable[object], most: int = 8, *, quote: bool = True) -> str:
    """Return "'a', 'b', 'c' and 4 more".

    Args:
        items: What to list.
        most: How many to name.
        quote: Whether each is quoted, as names of classes, columns and options are.

    Example:
        >>> listed("abcd", 2), listed(["accuracy", "f1"], quote=False)
        ("'a', 'b' and 2 more", 'accuracy, f1')
    """
    words = [quoted(str(item)) if quote else str(item) for item in items]
    rest = len(words) - most
    return ", ".join(words[:most]) + (f" and {rest:,} more" if rest > 0 else "")


def quoted(text: str, most: int = 60) -> str:
    r"""Return a text in quotes, on one line, shortened, without a character that a terminal would obey.

    Example:
        >>> quoted("two  lines\n"), quoted("x" * 100, 12)
        ("'two lines'", "'xxxxxxxxx...'")
    """
    return repr(shorten(visible(" ".join(text.split())), most))


def shorten(text: str, most: int, *, middle: bool = False) -> str:
    """Return a text that is at most so many terminal cells wide; "..." stands for what was left out.

    Args:
        text: One line.
        most: Cells, at least 4.
        middle: Whether to leave out the middle, as for a path, whose end says more than its middle.

    Example:
        >>> shorten("a long sentence", 10), shorten("runs/reviews/model.keras", 15, middle=True)
        ('a long ...', 'runs/r....keras')
    """
    if cell_len(text) <= most:
        return text
    kept = most - 3
    tail = _last_cells(text, kept - kept // 2) if middle else ""
    return f"{_first_cells(text, kept - cell_len(tail))}...{tail}"


def _first_cells(text: str, cells: int) -> str:
    end = min(len(text), cells)
    while cell_len(text[:end]) > cells:
        end -= 1
    while end < len(text) and cell_len(text[: end + 1]) <= cells:  # marks that take no cell of their own
        end += 1
    return text[:end]


def _last_cells(text: str, cells: int) -> str:
    start = max(0, len(text) - cells)
    while cell_len(text[start:]) > cells:
        start += 1
    return text[start:]


def pad(text: str, cells: int, *, right: bool = False) -> str:
    """Return a text filled with spaces to so many cells: `str.ljust`, or `rjust`, for every script."""
    fill = " " * max(0, cells - cell_len(text))
    return fill + text if right else text + fill


def wrap(text: str, *, indent: str = "", then: str | None = None, columns: int | None = None) -> list[str]:
    """Break a paragraph into lines of at most so many cells, between words where that is possible.

    Args:
        text: The paragraph; runs of white space are one space.
        indent: What the first line begins with.
        then: What the others begin with; None is as many spaces.
        columns: The width; None is `width()`.

    Example:
        >>> wrap("one two three four", indent="* ", columns=12)
        ['* one two', '  three four']
    """
    columns = width() if columns is None else columns
    then = " " * cell_len(indent) if then is None else then
    lines: list[str] = []
    line, start = "", indent
    for word in text.split():
        while True:
            joined = f"{line} {word}" if line else word
            if cell_len(start + joined) <= columns:
                line = joined
                break
            if not line:  # a word longer than a line: a web address, or Chinese
                head = _first_cells(word, max(1, columns - cell_len(start))) or word[0]
                lines.append(start + head)
                word = word[len(head) :]
                if not word:
                    start = then
                    break
            else:
                lines.append(start + line)
            line, start = "", then
    return [*lines, start + line] if line else lines


def fill(text: str, *, indent: str = "", then: str | None = None, columns: int | None = None) -> str:
    """Return `wrap` as one text."""
    return "\n".join(wrap(text, indent=indent, then=then, columns=columns))


def visible(text: str) -> str:
    r"""Return a text in which no character can move the cursor, colour the terminal or turn the line round.

    Control characters (but line breaks) and invisible format characters (bidirectional controls, zero-width
    spaces) are written as escapes; what joins letters stays.

    Example:
        >>> visible("good\x1b[31m film"), visible("admin\u202etxt.exe"), visible("नहीं")
        ('good\\x1b[31m film', 'admin\\u202etxt.exe', 'नहीं')
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escaped(c) for c in text)


def _escaped(character: str) -> str:
    if character == "\n" or character in _JOINERS:
        return character
    if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp"):
        return character.encode("unicode_escape").decode()
    return character


def show(text: str, *, file: TextIO | None = None) -> None:
    """Print a text, its tabs and line breaks as they are, whatever the encoding of the file can hold.

    Args:
        text: Any text; what a terminal would obey is escaped, what the encoding lacks is printed as "?".
        file: Where to print; None is stdout.
    """
    file = sys.stdout if file is None else file
    encoding = getattr(file, "encoding", None) or "utf-8"
    safe = "\t".join(map(visible, text.split("\t")))
    print(safe.encode(encoding, "replace").decode(encoding), file=file)


_TINY = 1e-9  # a share nearer to 0 or 1 has so many digits that nobody reads them


def share(value: float) -> str:
    """Return a share with three decimals, or with more where three would say 1.000 or 0.000 wrongly.

    Example:
        >>> share(0.785), share(0.99962), share(1.0), share(0.0004), share(9.7e-21), share(1 - 1e-15)
        ('0.785', '0.9996', '1.000', '0.0004', '1e-20', '0.999999999')
    """
    if 0 < abs(value) < _TINY:
        return f"{value:.0e}"
    if 0 < 1 - abs(value) < _TINY:
        value = math.copysign(1 - _TINY, value)
    shown = f"{value:.3f}"
    digits = 3
    while abs(float(shown)) in (0.0, 1.0) and abs(value) not in (0.0, 1.0) and digits < 16:
        digits += 1
        shown = f"{value:.{digits}f}"
    return shown


def points(value: float, *, signed: bool = False) -> str:
    """Return a difference of two shares in percentage points.

    Example:
        >>> points(0.123), points(0.0004), points(0.05, signed=True), points(-0.0004, signed=True)
        ('12.3 points', 'under 0.1 points', '+5.0 points', 'under 0.1 points')
    """
    if 0 < abs(value) < 0.0005:
        return "under 0.1 points"
    return f"{100 * value:{'+' if signed else ''}.1f} points"


def p_value(p: float) -> str:
    """Return "p = 0.031" or "p < 0.001".

    Example:
        >>> p_value(0.0312), p_value(0.0007), p_value(1.0)
        ('p = 0.031', 'p < 0.001', 'p = 1.000')
    """
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def in_words(items: Sequence[str], joined_by: str = "and") -> str:
    """Return "a", "a and b", "a, b and c".

    Example:
        >>> in_words(["accuracy", "recall", "F1"])
        'accuracy, recall and F1'
    """
    if len(items) < 2:
        return "".join(items)
    return f"{', '.join(items[:-1])} {joined_by} {items[-1]}"
