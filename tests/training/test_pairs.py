"""Training on pairs of texts: a run that is resumed, judged and asked with pairs."""

import json

import keras
import numpy as np
import pandas as pd
import pytest

import finetune_eval as fe
from finetune_eval import cli
from finetune_eval.runs import Run
from finetune_eval.studies.learners import learner_of

WORDS = ("good", "bad")
OTHERS = ("a", "film", "the", "was", "very", "not", "warm", "cafe")


def rows(n=48, seed=0):
    """Return pairs of texts that all differ, and whether both have the same word of two."""
    random = np.random.default_rng(seed)
    draws = random.permutation(len(OTHERS) ** 3)[:n]
    pairs, y = [], []
    for row, draw in enumerate(draws):
        a, b = row % 2, (row // 2) % 2
        first, second, third = (OTHERS[draw // 8**place % 8] for place in range(3))
        pairs.append((f"the {WORDS[a]} {first} {second}", f"a {WORDS[b]} {third}"))
        y.append("same" if a == b else "other")
    return pairs, y


LABELS = ["other", "same"]


@pytest.fixture(scope="module")
def checkpoint(tiny, tmp_path_factory):
    return tiny.checkpoint(tmp_path_factory.mktemp("pairs") / "bert")


def tuned(tiny, checkpoint, folder, stop_at=10**9):
    x, y = rows()
    model = fe.build_model(checkpoint, LABELS, pairs=True, dropout=0.0)
    return fe.fine_tune(
        model, x, y, validation_data=rows(16, seed=1), epochs=3, learning_rate=0.01, checkpoint_every=1,
        run_dir=folder, callbacks=tiny.stop_at(stop_at), verbose=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def whole(tiny, checkpoint, tmp_path_factory):
    return tuned(tiny, checkpoint, tmp_path_factory.mktemp("whole"))


def test_a_run_of_pairs_keeps_what_it_trained_on_and_its_model_reads_pairs(whole):
    run, (x, y) = Run(whole.run_dir), rows()
    assert run.training_rows()[0] == [f"{first} ||| {second}" for first, second in x]
    assert run.read_manifest()["model"]["build"]["pairs"] is True
    model, (test_x, test_y) = fe.load_model(whole.run_dir), rows(16, seed=2)
    assert np.array_equal(model.predict(test_x, verbose=0), whole.model.predict(test_x, verbose=0))
    result = fe.evaluate(model, test_x, test_y, train=(x, y), n_resamples=100)
    from_folder = fe.evaluate(model, np.array(test_x), test_y, train=str(whole.run_dir), n_resamples=100)
    assert result.leaks == from_folder.leaks and result.baselines == from_folder.baselines
    assert result.accuracy == np.mean([model.labels[k] == word for k, word in zip(
        model.decide(model.predict(test_x, verbose=0)), test_y, strict=True)])  # fmt: skip
    assert result.predictions["text"][0] == f"{test_x[0][0]} ||| {test_x[0][1]}"


@pytest.mark.slow
def test_a_resumed_run_of_pairs_is_the_run_without_a_break(tiny, whole, checkpoint, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        tuned(tiny, checkpoint, tmp_path / "run", stop_at=5)
    again = fe.resume(tmp_path / "run", callbacks=tiny.stop_at(10**9), verbose=False)
    for a, b in zip(again.model.get_weights(), whole.model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert again.model.takes_pairs


def test_a_share_of_pairs_is_held_out_and_folds_are_judged(checkpoint):
    x, y = rows()
    model = fe.build_model(checkpoint, LABELS, pairs=True)
    with pytest.raises(TypeError, match="^`validation x` must hold two texts a row"):
        fe.fine_tune(model, x, y, validation_data=(["a", "b"], y[:2]), verbose=False)
    frame = pd.DataFrame(x, columns=["premise", "claim"])
    swapped = (frame[["claim", "premise"]], y)
    for fit in (model.fit, fe.fine_tune):
        with pytest.raises(ValueError, match="^`x` and `validation x` have their columns in another order"):
            fit(*([] if fit == model.fit else [model]), frame, y, validation_data=swapped)
    done = fe.fine_tune(model, x, y, validation_split=0.25, epochs=1, verbose=False)
    assert done.manifest["rows"]["validation"]["rows"] == 12

    def fit(x, y, seed):
        return _Constant(x)

    crossed = fe.cross_evaluate(fit, x, y, folds=2, verbose=False, n_resamples=100)
    assert crossed.evaluation.n == 48
    assert any(baseline.name.startswith("TF-IDF") for baseline in crossed.evaluation.baselines)
    by_name = learner_of(checkpoint, None, np.array(x, dtype=object), np.zeros(48, int), tuple(LABELS))
    assert by_name._built(0).takes_pairs


class _Constant:
    """Answers that need nothing but rows of two texts."""

    def __init__(self, x):
        assert np.shape(x)[1] == 2

    def predict(self, x):
        assert np.shape(x)[1] == 2
        return np.tile([0.4, 0.6], (len(x), 1))


def command(*arguments):
    """Run the command line here; return its exit code."""
    with pytest.raises(SystemExit) as stop:
        cli.main(list(map(str, arguments)))
    return stop.value.code


@pytest.mark.slow
@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="one backend is enough")
def test_the_command_line_trains_on_two_columns_and_answers_pairs(checkpoint, tmp_path, capsys):
    x, y = rows(60)
    frame = pd.DataFrame({"claim": [b for _, b in x], "label": y, "premise": [a for a, _ in x]})
    frame.to_csv(tmp_path / "rows.csv", index=False)
    columns = ("--text", "premise", "--text", "claim")
    run = tmp_path / "run"
    assert 0 == command(
        "train", tmp_path / "rows.csv", *columns, "--model", checkpoint, "--epochs", "1", "--run-dir", run
    )
    assert f'finetune-eval predict {run} "One text. ||| The other."' in capsys.readouterr().out
    assert 0 == command("predict", run, "--file", tmp_path / "rows.csv", *columns, "--json")
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    model = fe.load_model(run)
    given = [[line["probabilities"][label] for label in model.labels] for line in lines]
    np.testing.assert_allclose(given, model.predict(x, verbose=0), atol=1e-6)
    assert lines[0]["text"] == f"{x[0][0]} ||| {x[0][1]}"
    assert 0 == command("evaluate", run, "--data", tmp_path / "rows.csv", *columns)
    assert 0 == command("leaks", tmp_path / "rows.csv", tmp_path / "rows.csv", *columns)
    assert "60 of 60 test rows match" in capsys.readouterr().out
    assert 1 == command("predict", run, "one text")
    assert "must hold two texts a row" in capsys.readouterr().err
    assert 2 == command("train", tmp_path / "rows.csv", *columns, "--text", "label")
    assert "give it once, or twice for pairs of texts" in capsys.readouterr().err
