"""The words of a text, and the form in which two texts count as the same, in every script.

The letters of Python's patterns leave out combining marks: such a pattern cuts नहीं and a decomposed "ä" in
pieces. And patterns see characters that no reader sees. Both are put right here, once.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator

from finetune_eval.data.ledger import normalise

# Characters that a reader does not see: Default_Ignorable_Code_Point (Unicode 16, DerivedCoreProperties.txt),
# which are zero-width spaces and joiners, soft hyphens, byte-order marks, marks of direction, variation
# selectors and fillers.
_IGNORABLE = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
# Control characters that are no white space are not seen either.
_CONTROLS = "\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f"
_UNSEEN = re.compile(f"[{_CONTROLS}{_IGNORABLE}]+")
_JOINERS = "\u200c\u200d"  # they belong into words of Persian, Malayalam, Sinhala, ...
# Scripts that put no space between words (the kana and Han; line-break class SA of Unicode).
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u1950-\u19df\u1a20-\u1aaf\ua9e0-\ua9ff\uaa60-\uaadf"
    "\u3005-\u3007\u3021-\u3029\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
_ASCII_WORD = re.compile(r"\w+")
_UNSPACED_LETTER = re.compile(f"[{_UNSPACED}]")


def same_text(text: str) -> str:
    r"""Return the form in which two texts count as the same: `normalise` of the characters that are seen.

    This is toNFKC_Casefold of the Unicode Standard, with white space collapsed and control characters left
    out as well.

    Example:
        >>> same_text("won\u00adder\u200bful  Cafe\u0301")
        'wonderful café'

    Reference:
        The Unicode Standard 16.0, section 3.13.3, R5.
    """
    return normalise(text if text.isascii() and text.isprintable() else _UNSEEN.sub("", text))


def words(text: str) -> list[str]:
    r"""Return the words of a text in lower case, in their order; a symbol such as an emoji is a word.

    Where a script puts no space between words (Chinese, Japanese, Thai, Khmer, ...), every two neighbouring
    characters are one: pairs of characters serve search engines as well as words do there.

    Example:
        >>> words("Not bad, 10/10!"), words("यह अच्छी नहीं है"), words("不好看")
        (['not', 'bad', '10', '10'], ['यह', 'अच्छी', 'नहीं', 'है'], ['不好', '好看'])

    Reference:
        Nie, Gao, Zhang, Zhou 2000, IRAL: pairs of characters and words retrieve Chinese equally well.
    """
    if text.isascii() and text.isprintable():
        return _ASCII_WORD.findall(text.lower())
    found: list[str] = []
    for run, characters in _runs(text):
        if run:
            found += [run]
        elif len(characters) == 1:
            found += characters
        else:
            found += map("".join, zip(characters, characters[1:], strict=False))
    return found


def units(text: str) -> list[str]:
    """Return the words of a text; where a script puts no space between words, its characters.

    Example:
        >>> units("iPhone 很好")
        ['iphone', '很', '好']
    """
    if text.isascii() and text.isprintable():
        return _ASCII_WORD.findall(text.lower())
    return [unit for run, characters in _runs(text) for unit in ([run] if run else characters)]


def unspaced(texts: Iterable[str]) -> bool:
    """Return whether more than half of the texts are in a script that puts no space between words."""
    marked = [_UNSPACED_LETTER.search(text) is not None for text in texts]
    return 2 * sum(marked) > len(marked)


class _Kinds(dict[int, str]):
    """The kind of a character: w a letter or digit, m what stays with it, u without spaces, s a symbol."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        category = unicodedata.category(character)
        if category[0] == "M" or character in _JOINERS:
            kind = "m"
        elif _UNSPACED_LETTER.match(character) and category[0] in "LN":
            kind = "u"
        elif character.isalnum() or character == "_":
            kind = "w"
        else:
            kind = "s" if category == "So" else " "
        self[code] = kind
        return kind


_KINDS = _Kinds()
_RUN = re.compile("(?:wm*)+|(?:um*)+|s")
_CHARACTER = re.compile("um*")


def _runs(text: str) -> Iterator[tuple[str, list[str]]]:
    """Yield each word and an empty list, or an empty word and the characters of an unspaced run."""
    seen = _UNSEEN.sub(lambda found: "".join(c for c in found[0] if c in _JOINERS), text)
    lower = unicodedata.normalize("NFKC", seen).lower()
    kinds = lower.translate(_KINDS)
    for run in _RUN.finditer(kinds):
        start, end = run.span()
        if kinds[start] == "u":
            yield "", [lower[slice(*one.span())] for one in _CHARACTER.finditer(kinds, start, end)]
        else:
            yield lower[start:end].rstrip(_JOINERS), []
