"""LoRA: adapters learn, all else keeps its bits; saved, loaded, merged and killed runs answer the same."""

import re

import keras
import numpy as np
import pytest

import finetune_eval as fe
from finetune_eval.models import lora

TEXTS = ["good", "bad film", "a good film.", "very bad"] * 4
SENTIMENTS = [1, 0, 1, 0] * 4


def tuned(model, **settings):
    settings = {"epochs": 3, "batch_size": 4, "learning_rate": 0.05, "precision": "float32", **settings}
    return fe.fine_tune(model, TEXTS, SENTIMENTS, strategy="lora", lora_rank=2, verbose=False, **settings)


def values(model):
    return {weight.path: np.array(keras.ops.convert_to_numpy(weight)) for weight in model.weights}


@pytest.fixture(scope="module")
def run(tiny, tmp_path_factory):
    """A run with adapters: the weights before it, and what it left."""
    model = tiny.text_classifier(layers=2)
    before = values(model)
    return before, tuned(model, run_dir=tmp_path_factory.mktemp("runs") / "lora")


def test_the_adapters_and_the_head_move_and_nothing_else(run):
    before, result = run
    after = values(result.model)
    moved = {path for path in before if not np.array_equal(before[path], after[path])}
    assert moved == {"logits/kernel", "logits/bias"}
    added = set(after) - set(before)
    # Queries and values of two layers, two matrices each; that B begins at 0 tells that it moved.
    assert len(added) == 2 * 2 * 2 and all("lora_kernel" in path for path in added)
    assert all(after[path].any() for path in added)
    a = next(layer for layer in lora.adapted(result.model)).lora_kernel_a
    assert a.shape[-1] == 2
    assert result.model.moved["transformer_layer_0"] > 0  # of the kernels as the adapters change them
    assert result.model.moved["token_embedding"] == 0


def test_saved_and_loaded_it_answers_the_same_without_adapters(run, tmp_path):
    _, result = run
    expected = result.model.predict(TEXTS, verbose=0)
    for path in (result.run_dir, tmp_path / "model.keras"):
        if not path.exists():
            result.model.save(path)
        loaded = fe.load_model(path)
        assert not lora.adapted(loaded)
        np.testing.assert_allclose(loaded.predict(TEXTS, verbose=0), expected, rtol=0, atol=1e-6)
        # Not frozen, as the model was not before its adapters.
        assert any("transformer_layer_0" in weight.path for weight in loaded.trainable_variables)


@pytest.mark.slow
def test_merged_it_answers_the_same_and_trains_whole_again(tiny):
    model = tiny.text_classifier(layers=1)
    tuned(model, epochs=2)
    expected = model.predict(TEXTS, verbose=0)
    model.merge_lora()
    assert not lora.adapted(model) and not any("lora" in weight.path for weight in model.weights)
    np.testing.assert_allclose(model.predict(TEXTS, verbose=0), expected, rtol=0, atol=1e-6)
    before = values(model)
    fe.fine_tune(model, TEXTS, SENTIMENTS, epochs=1, learning_rate=0.01, verbose=False)
    after = values(model)
    kernel = next(path for path in before if path.endswith("query/kernel"))
    assert not np.array_equal(before[kernel], after[kernel])


@pytest.mark.slow
def test_the_weights_of_a_killed_run_are_those_of_its_best_epoch(tiny, tmp_path):
    # What the checkpoint has on the disk when a process is killed, read as `load_model` reads it.
    model = tiny.text_classifier(layers=1)
    found = {}

    class Killed(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 1:
                found["expected"] = self.model.predict(TEXTS, verbose=0)
                raise KeyboardInterrupt

    validation = (TEXTS[:4], SENTIMENTS[:4])
    run = tmp_path / "run"
    from finetune_eval.runs import Run

    def no_model(self, save):
        raise OSError("no room")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "save_model", no_model)
        with pytest.raises(KeyboardInterrupt), pytest.warns(RuntimeWarning, match="could not be written"):
            tuned(model, validation_data=validation, run_dir=run, callbacks=[Killed()])
    assert not (run / "model" / "model.keras").exists()
    loaded = fe.load_model(run)
    np.testing.assert_allclose(
        loaded.predict(TEXTS, verbose=0), model.predict(TEXTS, verbose=0), rtol=0, atol=1e-6
    )
    assert np.abs(found["expected"] - tiny.text_classifier(layers=1).predict(TEXTS, verbose=0)).max() > 0.01


def test_the_same_seed_gives_the_same_adapters(tiny):
    models = []
    for noise in (1, 2):
        keras.utils.set_random_seed(noise)
        models.append(tuned(tiny.text_classifier(layers=1), epochs=1).model)
    for one, other in zip(*(model.get_weights() for model in models), strict=True):
        np.testing.assert_array_equal(one, other)


def test_another_rank_and_a_backbone_without_attention_are_refused(run, tiny):
    with pytest.raises(
        ValueError,
        match="^`lora_rank` must be 2, the rank of the adapters that the model has; got 8. "
        r"`model.merge_lora\(\)` turns these into weights first.$",
    ):
        fe.fine_tune(run[1].model, TEXTS, SENTIMENTS, strategy="lora", lora_rank=8, verbose=False)
    with pytest.raises(
        ValueError,
        match="^`strategy` 'lora' needs a backbone with attention layers, whose queries and values it "
        "adapts; Functional has none. Use 'full' or 'head'.$",
    ):
        fe.fine_tune(tiny.numeric_classifier(), *tiny.numeric_rows(8), strategy="lora", verbose=False)


def test_a_model_built_with_adapters_trains_them_and_the_head_alone(tiny, tmp_path):
    backbone, preprocessor = tiny.bert(layers=1)
    model = fe.build_model(backbone, preprocessor=preprocessor, lora_rank=2)
    before = values(model)
    assert {layer.lora_rank for layer in lora.adapted(model)} == {2}
    # Queries and values of one layer, two matrices each; kernel and bias of the head.
    assert len(model.trainable_variables) == 2 * 2 + 2
    model.fit(TEXTS, SENTIMENTS, batch_size=4, verbose=0)
    fe.fine_tune(model, TEXTS, SENTIMENTS, epochs=1, learning_rate=0.05, verbose=False)  # strategy "full"
    tuned(model, epochs=1)
    fe.fine_tune(model, TEXTS, SENTIMENTS, epochs=1, strategy="lora", verbose=False)  # of the model's rank
    after = values(model)
    moved = {path for path in before if not np.array_equal(before[path], after[path])}
    assert moved == {variable.path for variable in model.trainable_variables}
    expected = model.predict(TEXTS, verbose=0)
    model.save(tmp_path / "m.keras")
    loaded = fe.load_model(tmp_path / "m.keras")
    assert not lora.adapted(loaded)
    np.testing.assert_allclose(loaded.predict(TEXTS, verbose=0), expected, rtol=0, atol=1e-6)
    model.merge_lora()
    np.testing.assert_allclose(model.predict(TEXTS, verbose=0), expected, rtol=0, atol=1e-6)
    # The rest of the backbone was frozen, and is so with the adapters in it.
    for each in (model, loaded):
        assert [variable.path for variable in each.trainable_variables] == ["logits/kernel", "logits/bias"]


def test_a_rank_that_cannot_be_built_is_refused(tiny):
    numbers = keras.Input((4,))
    backbone = keras.Model(numbers, keras.layers.Dense(3, "relu")(numbers))
    sentence = (
        "`lora_rank` needs a backbone with attention layers, whose queries and values it adapts; Functional "
        "has none. Leave it out."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        fe.build_model(backbone, lora_rank=2)
    sentence = "`lora_rank` freezes the backbone but for its adapters; leave `freeze` out."
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        fe.build_model(backbone, lora_rank=2, freeze=True)
    with pytest.raises(ValueError, match="^`lora_rank` must be"):
        fe.build_model(backbone, lora_rank=0)
