import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune_eval.traces.prediction import LayerStep, PredictionTrace, cells

TRACE = PredictionTrace(
    text="A warm, funny, honest film.",
    tokens=("[CLS]", "a", "warm", ",", "funny", ",", "honest", "film", ".", "[SEP]"),
    token_ids=(101, 1037, 4010, 1010, 6057, 1010, 7481, 2143, 1012, 102),
    embedding=LayerStep("embeddings", (10, 384), 3.2),
    layers=(
        LayerStep("transformer_layer_0", (10, 384), 8.41, 0.62, 0.0041),
        LayerStep("transformer_layer_1", (10, 384), 9.137, 0.9, 0.0123),
    ),
    pooling="mean of the tokens",
    pooled_shape=(384,),
    logits=(-1.5, 2.0),
    probabilities=(0.029, 0.971),
    labels=("negative", "positive"),
    answer="positive",
    check=6e-8,
)


def test_drawing():
    assert str(TRACE) == (
        "text       A warm, funny, honest film.\n"
        "           |\n"
        "tokens     10 tokens\n"
        "           [CLS] a warm , funny , honest film . [SEP]\n"
        "           |\n"
        "embedding  10 x 384, mean norm 3.2\n"
        "           |\n"
        "layers                                    shape     norm  cosine    moved\n"
        "           transformer_layer_0         10 x 384     8.41    0.62   0.41 % ##\n"
        "           transformer_layer_1         10 x 384     9.14    0.90   1.23 % ######\n"
        "           |\n"
        "pooling    mean of the tokens -> 384\n"
        "           |\n"
        "softmax                logit  probability\n"
        "           negative   -1.500        0.029 #\n"
        "           positive    2.000        0.971 ###########################\n"
        "           |\n"
        "answer     positive (0.971)\n"
        "\n"
        "check: the probabilities differ from those of model.predict by at most 6e-08"
    )


def test_cut_text_and_threshold_are_said():
    trace = dataclasses.replace(TRACE, tokens_cut=1200, threshold=0.4, layers=())
    assert "10 tokens; 1,200 more were cut off" in str(trace)
    assert "answer     positive (0.971), threshold 0.400" in str(trace)
    assert "layers" not in str(trace)


def test_long_text_is_shortened_and_says_so():
    text = "word " * 1000
    drawn = str(dataclasses.replace(TRACE, text=text))
    assert "... (5,000 characters)" in drawn
    assert len(drawn.splitlines()) < 30


def test_control_characters_never_reach_the_terminal():
    drawn = str(dataclasses.replace(TRACE, text="red \x1b[31m alert\nnext\u202eline", answer="\x07"))
    assert "\x1b" not in drawn and "\x07" not in drawn and "\u202e" not in drawn
    assert "red \ufffd[31m alert next\ufffdline" in drawn


@settings(max_examples=200, deadline=None)
@given(
    st.text(max_size=600),
    st.lists(st.text(min_size=1, max_size=120), min_size=1, max_size=200),
    st.lists(st.tuples(st.text(min_size=1, max_size=50), st.floats(0, 1)), min_size=1, max_size=8),
)
def test_any_text_is_drawn_in_80_columns(text, tokens, classes):
    labels, probabilities = zip(*classes, strict=True)
    trace = dataclasses.replace(
        TRACE,
        text=text,
        tokens=tuple(tokens),
        token_ids=tuple(range(len(tokens))),
        layers=(LayerStep(text or "layer", (len(tokens), 4096), 1e12, None, 123.4),),
        labels=labels,
        logits=(0.0,) * len(labels),
        probabilities=probabilities,
        answer=labels[0],
    )
    lines = str(trace).split("\n")
    assert max(map(cells, lines)) <= 80
    assert all(line.isprintable() for line in lines)


def test_wide_characters_take_two_columns():
    # Unicode Standard Annex 11: CJK ideographs are wide; a combining accent takes no column of its own.
    assert (cells("電影"), cells("cafe\u0301")) == (4, 4)


def test_unequal_lengths_are_refused():
    with pytest.raises(
        ValueError, match="^`logits` and `labels` must have the same number of rows; got 2 and 3.$"
    ):
        dataclasses.replace(TRACE, labels=("a", "b", "c"))


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_the_drawing_fits_the_terminal_and_many_classes_are_few_lines(monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    step = LayerStep("transformer_layer_0", (17, 384), 11.5, 0.87, 0.0172)
    p = np.full(500, 0.5 / 499)
    p[[3, 400]] = 0.3, 0.2 + 0.5 / 499
    labels = tuple(f"class number {k}" for k in range(500))
    text, logits = "A warm, funny and honest film. " * 9, tuple(np.log(p))
    lines = str(
        PredictionTrace(
            text, ("film",) * 60, (7,) * 60, step, (step,) * 3, "mean of the tokens", (384,), logits,
            tuple(p), labels, labels[3], 0.0,
        )
    ).splitlines()  # fmt: skip
    assert max(map(len, lines)) <= min(columns, 80) and len(lines) < 60
    drawn = [line for line in lines if "class number" in line and "answer" not in line]
    shown = [" ".join(line.split()) for line in drawn]
    assert len(shown) == 20 and any(line.startswith("class number 400 -1.604 0.201") for line in shown)
    assert "           ... and 480 classes that are less probable" in lines
