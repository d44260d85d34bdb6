"""Words of every script whole, and texts that look the same are the same."""

import re
import unicodedata

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_eval.data.leakage import find_leaks
from finetune_eval.data.ledger import normalise
from finetune_eval.data.splits import split
from finetune_eval.data.words import same_text, units, unspaced, words
from finetune_eval.evaluation.evaluate import evaluate_predictions

# Default_Ignorable_Code_Point, one of each range of the Unicode Character Database, and control characters.
UNSEEN = [
    "\u00ad", "\u034f", "\u061c", "\u115f", "\u17b4", "\u180e", "\u200b", "\u200c", "\u200d", "\u200e",
    "\u202e", "\u2060", "\u2066", "\u206f", "\u3164", "\ufe00", "\ufe0f", "\ufeff", "\uffa0", "\U0001d173",
    "\U000e0041", "\U000e01ef", "\x00", "\x7f",
]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Not BAD, 10/10!", ["not", "bad", "10", "10"]),
        ("यह फिल्म अच्छी नहीं है।", ["यह", "फिल्म", "अच्छी", "नहीं", "है"]),  # Devanagari: vowel signs are marks
        ("আমি ভালো নই", ["আমি", "ভালো", "নই"]),  # Bengali
        ("இது நல்ல படம்", ["இது", "நல்ல", "படம்"]),  # Tamil
        ("كِتَابٌ جميل", ["كِتَابٌ", "جميل"]),  # Arabic with its short vowels
        ("שָׁלוֹם עולם", ["שָׁלוֹם", "עולם"]),  # Hebrew with its points
        ("می\u200cخواهم بروم", ["می\u200cخواهم", "بروم"]),  # Persian: the non-joiner is inside the word
        ("cafe\u0301 na\u0308he", ["café", "nähe"]),  # decomposed, as macOS writes file names
        ("한국어 문장", ["한국어", "문장"]),  # Hangul has spaces
        ("I ❤\ufe0f it 😀😡", ["i", "❤", "it", "😀", "😡"]),
        ("iPhone手机 x", ["iphone", "手机", "x"]),
        ("不好看。好", ["不好", "好看", "好"]),
        ("ไม่ดี", ["ไม่", "ม่ดี"]),  # Thai: the tone mark and the vowel stay with their consonants
        ("won\u00adder\u200bful", ["wonderful"]),
        ("\x00a\x00b", ["ab"]),
        ("...", []),
        ("", []),
    ],
)
def test_words_are_whole(text, expected):
    assert words(text) == expected


def test_units_are_words_or_characters():
    assert units("iPhone 很好看") == ["iphone", "很", "好", "看"]
    assert units("नहीं है") == ["नहीं", "है"] and units("plain words") == ["plain", "words"]
    assert unspaced(["很好", "ok", "ดี"]) and not unspaced(["很好", "ok", "good"])


@given(st.text(st.characters(codec="ascii"), max_size=40))
def test_ascii_words_are_pythons(text):
    printable = re.sub(r"[\x00-\x08\x0e-\x1b\x7f]", "", text)
    assert words(text) == re.findall(r"\w+", printable.lower())


@given(st.text(max_size=40))
def test_normal_forms_have_the_same_words(text):
    forms = {tuple(words(unicodedata.normalize(form, text))) for form in ("NFC", "NFD")}
    assert len(forms) == 1


@pytest.mark.parametrize("character", UNSEEN, ids=lambda c: f"U+{ord(c):04X}")
def test_what_is_not_seen_makes_no_other_text(character):
    plain = "a warm and funny film"
    hidden = f"a warm{character} and fun{character}ny film"
    assert same_text(hidden) == same_text(plain) == plain
    assert find_leaks([plain, "another"], [hidden]).kind.tolist() == ["normalised"]
    result = evaluate_predictions([0, 1, 1], [0.2, 0.8, 0.9], texts=[plain, hidden, "else"])
    assert any("1 of 3 rows repeats the text of another row" in line for line in result.warnings)
    texts = [plain, hidden, *(f"film number {i}" for i in range(98))]
    for seed in range(5):
        made = split(texts, [0, 1] * 50, seed=seed, test=30)
        sides = [{0, 1} & set(part.ids.tolist()) for part in (made.train, made.validation, made.test)]
        assert sorted(map(len, sides)) == [0, 0, 2]


def test_what_is_seen_makes_another_text():
    assert same_text("a b") != same_text("ab")
    assert same_text("film!") != same_text("film")
    assert same_text("cafe") != same_text("café")


@given(st.text(max_size=40))
def test_texts_without_such_characters_keep_their_form(text):
    # Splits of such texts keep their rows: the key under which two texts count as the same has not changed.
    if not set(text) & set(UNSEEN) and text.isprintable():
        assert same_text(text) == normalise(text)


def test_lengths_of_texts_without_spaces_are_characters():
    texts = ["好" * (1 + i % 20) for i in range(200)]
    result = evaluate_predictions(np.arange(200) % 2, np.full(200, 0.4), texts=texts)
    lengths = [part for part in result.slices if part.column == "length"]
    assert {part.value for part in lengths} >= {"1 to 4 characters", "17 to 20 characters"}
    assert {part.n for part in lengths} == {40}
