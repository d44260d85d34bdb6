"""Training on a text with numbers and categories beside it."""

import contextlib
import json

import keras
import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

import finetune_eval as fe
from finetune_eval import cli
from finetune_eval._columns import Columns
from finetune_eval.data.columns import rows_of_columns
from finetune_eval.runs import Run
from finetune_eval.studies.learners import learner_of
from finetune_eval.training.heads import features_of

COLUMNS = {"price": "number", "country": "category"}


def rows(tiny, n, seed):
    """Return rows whose label depends on text, price and country alike, with a noise of its own."""
    random = np.random.default_rng(seed)
    place = random.integers(0, len(tiny.texts), n)
    price = random.normal(100, 30, n)
    country = random.choice(np.array(["DE", "FR", "US", None], dtype=object), n)
    logit = 3 * (2 * np.array(tiny.sentiments)[place] - 1) + (price - 100) / 7.5
    logit += np.where(country == "DE", 3.0, -1.0)
    y = (logit + random.logistic(size=n) > 0).astype(int)
    price[::50] = np.nan
    return {"text": [tiny.texts[k] for k in place], "price": price, "country": country}, y


def test_a_model_that_is_used_again_forgets_the_columns_of_the_fold_before(tiny, tmp_path):
    x = rows_of_columns(rows(tiny, 10, seed=0)[0], COLUMNS)
    learner = learner_of(tiny.checkpoint(tmp_path / "bert"), None, x, np.arange(10) % 2, ("0", "1"))
    model = learner._fresh(0)
    model.learn_columns(x)
    assert learner._fresh(1) is model and model.columns == Columns.declared(COLUMNS)


@pytest.fixture(scope="module")
def trained(tiny, tmp_path_factory):
    """A run of the default strategy, whose model has columns, and its folder."""
    x, y = rows(tiny, 240, seed=0)
    folder = tmp_path_factory.mktemp("columns") / "run"
    model = tiny.text_classifier(columns=COLUMNS)
    return fe.fine_tune(
        model, x, y, validation_data=rows(tiny, 60, seed=1), epochs=2, run_dir=folder, verbose=False
    )


def accuracy(model, x, y):
    return float((model.predict(x, verbose=0).argmax(axis=1) == y).mean())


def test_the_columns_are_used_by_the_default_strategy(tiny, trained, scorer):
    """The rate of 1e-4 moves a weight by 0.002 here; what is used of the columns, the first head has."""
    (x, y), (test_x, test_y) = rows(tiny, 240, seed=0), rows(tiny, 600, seed=2)
    features = [features_of(scorer, each["text"]) for each in (x, test_x)]  # of the same backbone
    columns = trained.model.columns
    both = [
        np.concatenate([texts, columns.inputs("x", columns.read("x", each))], axis=1)
        for texts, each in zip(features, (x, test_x), strict=True)
    ]
    of_text, of_both = (
        LogisticRegression(max_iter=2000).fit(train, y).score(test, test_y)
        for train, test in (features, both)
    )
    found = accuracy(trained.model, test_x, test_y)
    assert found > of_text + 0.1  # five times the standard error of 600 rows
    assert found > of_both - 0.03


def test_what_was_learnt_is_of_the_training_rows_alone_and_saved_to_the_bit(tiny, trained, tmp_path):
    model, (x, _), (test_x, _) = trained.model, rows(tiny, 240, seed=0), rows(tiny, 60, seed=3)
    values, (mean, spread) = model.columns.learnt
    assert mean == pytest.approx(np.nanmean(x["price"]), rel=1e-14)
    assert spread == pytest.approx(np.nanstd(x["price"]), rel=1e-14)
    counts = pd.Series(x["country"]).value_counts()
    assert values == tuple(sorted(counts.index, key=lambda value: (-counts[value], value)))
    model.save(tmp_path / "model.keras")
    model.save_to_preset(tmp_path / "preset")
    expected = model.predict(test_x, verbose=0)
    for place in (tmp_path / "model.keras", tmp_path / "preset", trained.run_dir):
        again = fe.load_model(place)
        assert again.columns == model.columns
        np.testing.assert_array_equal(again.predict(test_x, verbose=0), expected)


def test_rows_are_the_same_in_every_container(tiny, trained):
    model, (x, y) = trained.model, rows(tiny, 30, seed=3)
    expected = model.predict(x, verbose=0)
    turned = pd.DataFrame({name: x[name] for name in ("price", "text", "country")})
    for same in (turned, rows_of_columns(x, COLUMNS), turned.to_dict("records")):
        np.testing.assert_array_equal(model.predict(same, verbose=0), expected)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(model(turned)), expected, atol=1e-5)
    assert model.evaluate(turned, y, verbose=0)[1] == pytest.approx((expected.argmax(axis=1) == y).mean())
    one = model.predict([{"text": "good", "price": None, "country": "GB"}], verbose=0)
    assert one.shape == (1, 2)
    trace = fe.trace_prediction(model, {"text": "good", "price": None, "country": "GB"})
    assert "columns    country 'GB', price missing" in str(trace)
    assert trace.text == "good" and trace.check < 1e-5
    np.testing.assert_allclose(trace.probabilities, one[0], atol=1e-5)


def test_a_later_training_keeps_what_was_learnt_and_its_head(tiny, trained):
    model = fe.load_model(trained.run_dir)
    x, y = rows(tiny, 40, seed=5)
    x["price"] = x["price"] + 1000
    head = np.array(model.get_layer("columns_logits").kernel)
    fe.fine_tune(model, x, y, epochs=1, verbose=False)
    assert model.columns == trained.model.columns
    assert np.abs(np.asarray(model.get_layer("columns_logits").kernel) - head).max() < 0.01


def test_what_was_not_learnt_is_refused_and_an_error_leaves_nothing_learnt(tiny):
    x, y = rows(tiny, 40, seed=0)
    model = tiny.text_classifier(columns=COLUMNS)
    for call in (lambda: model.predict(x), lambda: model.fit(x, y)):
        with pytest.raises(ValueError, match="^The model does not know the columns 'country', 'price' yet"):
            call()
    with pytest.raises(
        ValueError, match=r"^`validation x\['price'\]` must hold numbers that float32 can hold"
    ):
        fe.fine_tune(model, x, y, validation_data=({**x, "price": [np.inf] * 40}, y), verbose=False)
    fe.find_learning_rate(model, x, y, steps=3)
    assert model.columns.learnt is None and not np.asarray(model.get_layer("columns_logits").kernel).any()
    weights = np.where(np.arange(40) < 30, 1, 0)
    model.learn_columns(x, weights)
    assert model.columns.learnt[1][0] == pytest.approx(np.nanmean(x["price"][:30]))
    with pytest.raises(ValueError, match="^The model has learnt its columns already"):
        model.learn_columns(x)


@pytest.mark.parametrize("strategy", ["head", pytest.param("lora", marks=pytest.mark.slow)])
def test_a_frozen_backbone_has_a_head_of_features_and_columns(tiny, strategy):
    """What frozen layers give is computed once, and the columns beside it go into the head as they are."""
    (x, y), (test_x, test_y) = rows(tiny, 240, seed=0), rows(tiny, 600, seed=2)
    model = tiny.text_classifier(columns=COLUMNS)
    done = fe.fine_tune(
        model, x, y, validation_data=(test_x, test_y), strategy=strategy, epochs=1, verbose=False
    )
    found = accuracy(model, test_x, test_y)
    assert found > 0.75 and done.trace.epochs[-1].metrics["val_accuracy"] == pytest.approx(found, abs=1e-6)


@pytest.mark.slow
def test_several_classes_several_labels_and_a_frozen_layer(tiny):
    x, y = rows(tiny, 60, seed=0)
    x["country"][y == 1] = "DE"
    model = tiny.text_classifier(["a", "b", "c"], columns=COLUMNS, layers=2, freeze=1)
    fe.fine_tune(model, x, np.where(np.arange(60) < 5, 2, y), epochs=1, verbose=False)
    assert model.predict(x, verbose=0).shape == (60, 3)
    several = tiny.text_classifier(["dear", "german"], columns=COLUMNS, task="multilabel")
    given = np.stack([np.nan_to_num(x["price"]) > 100, x["country"] == "DE"], axis=1).astype(int)
    fe.fine_tune(several, x, given, epochs=1, verbose=False)
    assert (several.decide(several.predict(x, verbose=0)) == given).mean() > 0.9  # columns alone decide


def test_a_run_is_judged_by_its_texts_and_says_so(tiny, trained):
    (x, y), (test_x, test_y) = rows(tiny, 240, seed=0), rows(tiny, 60, seed=2)
    assert Run(trained.run_dir).training_rows()[0] == x["text"]
    assert trained.manifest["model"]["build"]["columns"] == COLUMNS
    result = fe.evaluate(trained.model, test_x, test_y, train=(x, y), n_resamples=100)
    folder = fe.evaluate(trained.model, pd.DataFrame(test_x), test_y, train=trained.run_dir, n_resamples=100)
    assert result.leaks == folder.leaks and result.baselines == folder.baselines
    assert any(
        note.startswith("The baselines and the search for leaks read the texts alone; the model reads "
                        "'country', 'price' too.")
        for note in result.warnings
    )  # fmt: skip
    assert result.predictions["text"].tolist() == test_x["text"]
    assert result.accuracy == pytest.approx(accuracy(trained.model, test_x, test_y))
    repeated = fe.rows_of_columns(
        {name: [*values[:3], values[0]] for name, values in test_x.items()}, COLUMNS
    )
    repeated["price"] = [1, 2, 3, 1]
    few = fe.evaluate(trained.model, repeated, [0, 1, 1, 1], n_resamples=100)
    assert "1 of 4 rows repeats the text and the columns of another row: it counts twice." in few.warnings
    assert any(note.startswith("1 of the repeated rows stands there with different") for note in few.warnings)


@pytest.mark.slow
@pytest.mark.parametrize("again", ["resume", "fine_tune"])
def test_a_resumed_run_of_columns_is_the_run_without_a_break(tiny, tmp_path, again):
    x, y = rows(tiny, 60, seed=0)

    def tuned(folder, stop_at=10**9, **more):
        model = tiny.text_classifier(columns=COLUMNS)
        return fe.fine_tune(
            model, x, y, validation_data=rows(tiny, 20, seed=1), epochs=2, checkpoint_every=1,
            run_dir=folder, callbacks=tiny.stop_at(stop_at), verbose=False, **more,
        )  # fmt: skip

    whole = tuned(tmp_path / "whole")
    with contextlib.suppress(KeyboardInterrupt):
        tuned(tmp_path / "run", stop_at=3)
    if again == "resume":
        resumed = fe.resume(tmp_path / "run", callbacks=tiny.stop_at(10**9), verbose=False)
    else:
        resumed = tuned(tmp_path / "run", resume=True)
    assert resumed.model.columns == whole.model.columns
    for a, b in zip(resumed.model.get_weights(), whole.model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_each_fold_learns_its_columns_from_its_own_training_rows(tiny, tmp_path):
    x, y = rows(tiny, 60, seed=0)
    x = rows_of_columns(x, COLUMNS)
    place = tiny.checkpoint(tmp_path / "bert")
    learner = learner_of(place, {"epochs": 1}, x, y, ("0", "1"))
    for part in (np.arange(30), np.arange(30, 60)):
        model = learner.train(part, 0)
        assert model.columns == Columns.of_rows(x).learn(x[part])
    assert learner._fresh(0).columns == Columns.of_rows(x)


@pytest.mark.slow
def test_a_share_is_held_out_and_nothing_is_learnt_from_it(tiny):
    x, y = rows(tiny, 60, seed=0)
    x["text"] = [f"{text} {row}" for row, text in enumerate(x["text"])]
    model = tiny.text_classifier(columns=COLUMNS)
    done = fe.fine_tune(model, x, y, validation_split=0.25, epochs=1, verbose=False)
    held_out = done.manifest["rows"]["validation"]["rows"]
    assert held_out == 15
    assert model.columns.learnt[1][0] != pytest.approx(np.nanmean(x["price"]))


def test_what_cannot_have_columns_says_so(tiny, trained, tmp_path):
    with pytest.raises(
        ValueError, match="^`columns` are what a row has beside a text; Functional reads numbers"
    ):
        tiny.numeric_classifier(columns=COLUMNS)
    folder = tiny.checkpoint(tmp_path / "bert")
    with pytest.raises(ValueError, match="^`columns` need one text a row, and the model reads pairs"):
        fe.build_model(folder, columns=COLUMNS, pairs=True)
    x, y = rows(tiny, 10, seed=0)
    text_alone = tiny.text_classifier()
    with pytest.raises(
        TypeError, match="^`x` holds the columns 'text', 'country', 'price', and this model reads"
    ):
        text_alone.predict(rows_of_columns(x, COLUMNS))
    with pytest.raises(ValueError, match="^The model reads no columns; build it with"):
        text_alone.learn_columns(x)
    with pytest.raises(ValueError, match="^A model that reads columns cannot be exported"):
        trained.model.export(tmp_path / "saved")
    with pytest.raises(TypeError, match=r"^`x` must be a dictionary, a DataFrame or a list of dictionaries"):
        trained.model.predict(x["text"])


def command(*arguments):
    """Run the command line here; return its exit code."""
    with pytest.raises(SystemExit) as stop:
        cli.main(list(map(str, arguments)))
    return stop.value.code


@pytest.mark.slow
@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="one backend is enough")
def test_the_command_line_trains_on_columns_of_a_file_and_answers_rows_of_them(tiny, tmp_path, capsys):
    x, y = rows(tiny, 120, seed=0)
    x["text"] = [f"{text} {row}" for row, text in enumerate(x["text"])]
    frame = pd.DataFrame(x).rename(columns={"text": "review"}).assign(label=np.where(y, "yes", "no"))
    frame.to_csv(tmp_path / "rows.csv", index=False)
    folder, run = tiny.checkpoint(tmp_path / "bert"), tmp_path / "run"
    asked = ["--text", "review", "--number", "price", "--category", "country", "--model", folder]
    assert command("train", tmp_path / "rows.csv", *asked, "--epochs", 1, "--run-dir", run) == 0
    assert f'predict {run} \'{{"review": "..."' in capsys.readouterr().out
    model = fe.load_model(run)
    assert model.columns.names == ["review", "country", "price"]
    row = {"review": "good", "price": 12, "country": None}
    assert command("predict", run, json.dumps(row), "--file", tmp_path / "rows.csv", "--json") == 0
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    expected = model.predict([row], verbose=0)[0].tolist()
    assert answers[0]["text"] == "good" and len(answers) == 121
    assert list(answers[0]["probabilities"].values()) == pytest.approx(expected, abs=1e-6)
    assert command("predict", run, "good") == 1
    assert "text 1 of 1 is no JSON object, and the model reads columns; write" in capsys.readouterr().err
    assert command("trace", run, json.dumps(row)) == 0
    assert command("evaluate", run, "--data", tmp_path / "rows.csv", "--json") == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["n"] == 120
    again = tmp_path / "again"
    same = (tmp_path / "rows.csv", "--model", folder)
    assert command("train", *same, "--like", run, "--run-dir", again) == 0
    for a, b in zip(fe.load_model(again).get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
