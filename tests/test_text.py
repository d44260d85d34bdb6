"""How words and numbers are written, for every script and every terminal."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from finetune_eval import _text

WORDS = st.text(st.sampled_from("ab नहीं电影é\u0301\u200d-'"), max_size=60)


@given(WORDS, st.integers(4, 30))
def test_shortened_text_fits_its_cells(text, most):
    for middle in (False, True):
        short = _text.shorten(text, most, middle=middle)
        assert cell_len(short) <= most
        assert short == text or "..." in short


@given(WORDS, st.integers(8, 30))
def test_wrapped_text_fits_and_loses_nothing(text, columns):
    lines = _text.wrap(text, indent="* ", columns=columns)
    assert all(cell_len(line) <= columns for line in lines)
    assert "".join("".join(lines).replace("*", "", 1).split()) == "".join(text.split())


def test_wrapping_follows_the_terminal(monkeypatch):
    for columns, width in [("60", 60), ("200", 80), ("10", 40)]:
        monkeypatch.setenv("COLUMNS", columns)
        assert _text.width() == width


@given(st.text())
def test_nothing_that_is_printed_can_steer_a_terminal(text):
    shown = _text.visible(text)
    assert not any(c != "\n" and (ord(c) < 32 or 127 <= ord(c) < 160) for c in shown)
    assert not set(shown) & set(
        "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u061c\u200b\ufeff"
    )


@pytest.mark.parametrize("text", ["नहीं", "क्‍ष", "👩‍👧", "café", "می‌خواهم", "two\nlines"])
def test_what_people_write_is_left_alone(text):
    assert _text.visible(text) == text


@pytest.mark.parametrize(
    ("value", "shown"),
    # A share that is not 1 is not shown as 1: 0.99962 would be 1.000 with three decimals.
    [
        (0.785, "0.785"),
        (0.99962, "0.9996"),
        (0.99951, "0.9995"),
        (1.0, "1.000"),
        (0.0, "0.000"),
        (1e-9, "0.000000001"),
        (9.7e-21, "1e-20"),  # with a fixed number of digits this would be all zeros
    ],
)
def test_shares(value, shown):
    assert _text.share(value) == shown


def test_small_amounts_and_p_values():
    assert _text.points(0.0004, signed=True) == "under 0.1 points"  # not "+0.0 points"
    assert _text.points(0.0) == "0.0 points"
    assert [_text.p_value(p) for p in (0.0007, 0.001, 0.0499, 1.0)] == [
        "p < 0.001",
        "p = 0.001",
        "p = 0.050",
        "p = 1.000",
    ]
    assert _text.counted(1, "row"), _text.counted(2, "row of values") == ("1 row", "2 rows of values")
