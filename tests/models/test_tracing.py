"""trace_prediction follows one text through the model and agrees with predict."""

import re

import keras
import numpy as np
import pytest

import finetune_eval as fe


@pytest.fixture(scope="module")
def model(tiny):
    return tiny.text_classifier(layers=2)


def test_the_trace_agrees_with_the_model_at_every_step(model, tiny):
    trace = fe.trace_prediction(model, "A good film.")
    assert trace.tokens == ("[CLS]", "a", "good", "film", ".", "[SEP]")
    assert [tiny.vocabulary[i] for i in trace.token_ids] == list(trace.tokens)
    assert trace.check < 1e-6 and trace.tokens_cut == 0
    p = model.predict(["A good film."])[0]
    assert trace.probabilities == pytest.approx(p, abs=1e-6)
    assert trace.answer == tiny.labels[int(p.argmax())]
    logits = np.array(trace.logits)
    assert np.exp(logits) / np.exp(logits).sum() == pytest.approx(p, abs=1e-5)
    assert (trace.pooling, trace.pooled_shape) == ("mean of the tokens", (8,))
    assert [step.name for step in trace.layers] == ["transformer_layer_0", "transformer_layer_1"]
    assert all(step.shape == (6, 8) for step in (trace.embedding, *trace.layers))


def test_norms_and_cosines_are_those_of_the_layers(model):
    trace = fe.trace_prediction(model, "A good film.")
    batch = model.encode(["A good film."]).take(np.array([0]))
    names = ["transformer_layer_0", "transformer_layer_1"]
    inner = keras.Model(model.backbone.input, [model.backbone.get_layer(name).output for name in names])
    first, second = (keras.ops.convert_to_numpy(value)[0] for value in inner(batch))
    norms = np.linalg.norm(first, axis=1), np.linalg.norm(second, axis=1)
    assert [step.norm for step in trace.layers] == pytest.approx([norms[0].mean(), norms[1].mean()], rel=1e-5)
    cosine = ((first * second).sum(axis=1) / norms[0] / norms[1]).mean()
    assert trace.layers[1].cosine_to_previous == pytest.approx(cosine, abs=1e-5)
    assert trace.embedding.cosine_to_previous is None


@pytest.mark.parametrize("words, cut", [(13, 0), (14, 0), (15, 1), (40, 26)])
def test_tokens_that_the_model_did_not_see_are_counted(model, words, cut):
    # 16 tokens fit, two of them [CLS] and [SEP].
    trace = fe.trace_prediction(model, " ".join(["film"] * words))
    assert (len(trace.tokens), trace.tokens_cut) == (min(words, 14) + 2, cut)
    assert trace.check < 1e-6


def test_an_empty_text_has_a_trace(model):
    trace = fe.trace_prediction(model, "")
    assert trace.tokens == ("[CLS]", "[SEP]") and trace.check < 1e-6


def test_the_answer_is_by_the_threshold_of_the_model(model, tiny):
    p = float(model.predict(["good"])[0, 1])
    try:
        for threshold, answer in (((1 + p) / 2, "negative"), (p / 2, "positive")):
            model.threshold = threshold
            trace = fe.trace_prediction(model, "good")
            assert (trace.answer, trace.threshold) == (answer, threshold)
    finally:
        model.threshold = None


def test_a_tempered_model_is_traced_as_it_predicts(model):
    try:
        model.temperature = 3.0
        trace = fe.trace_prediction(model, "not good")
        assert trace.check < 1e-6
    finally:
        model.temperature = 1.0


def test_how_far_layers_moved_is_shown_where_it_is_known(model):
    trace = fe.trace_prediction(model, "good", moved={"transformer_layer_1": 0.25})
    assert [step.moved for step in trace.layers] == [None, 0.25]
    assert "25.00 %" in str(trace)


def test_tracing_changes_no_weight(model):
    before = model.get_weights()
    fe.trace_prediction(model, "good")
    for was, now in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(was, now)


@pytest.mark.parametrize(
    "text, sentence",
    [
        (["a", "b"], "`text` must be one string; got list."),
        (None, "`text` must be one string; got NoneType."),
    ],
)
def test_what_is_no_text_is_one_sentence(model, text, sentence):
    with pytest.raises(TypeError, match=f"^{re.escape(sentence)}$"):
        fe.trace_prediction(model, text)


def test_a_model_of_numbers_is_one_sentence(numeric_scorer):
    sentence = "`model` must be a classifier of texts, from `build_model` or `load_model`."
    for model in (numeric_scorer, keras.Sequential()):
        with pytest.raises(TypeError, match=f"^{re.escape(sentence)}$"):
            fe.trace_prediction(model, "good")
