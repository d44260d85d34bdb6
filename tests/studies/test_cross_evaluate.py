"""Cross-evaluation: who judges whom, what is said of it, and what a study that was cut short does."""

import functools
import json
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import PredefinedSplit, cross_val_predict, cross_val_score
from sklearn.multiclass import OneVsRestClassifier

import finetune_eval as fe
from finetune_eval.studies.learners import function_hash
from finetune_eval.studies.scoring import OutOfFold

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(120, 4))
Y = (X[:, 0] + RANDOM.normal(size=120) > 0.3).astype(int)
CALLS = []  # not in the closure of a function that fits: what is there is part of what it does
QUIET = {"verbose": False, "n_resamples": 200}


def fit(x, y, seed):
    return LogisticRegression(random_state=seed).fit(x, y)


@pytest.fixture(scope="module")
def result():
    return fe.cross_evaluate(fit, X, Y, **QUIET)


def test_probabilities_and_scores_are_scikit_learns_on_the_same_folds(result):
    folds = PredefinedSplit(result.fold_of_row[0])
    expected = cross_val_predict(LogisticRegression(), X, Y, cv=folds, method="predict_proba")
    assert np.allclose(result.probabilities[0], expected, rtol=0, atol=1e-12)
    for name, theirs, sign in (("accuracy", "accuracy", 1), ("f1", "f1", 1), ("loss", "neg_log_loss", -1)):
        scores = sign * cross_val_score(LogisticRegression(), X, Y, cv=folds, scoring=theirs)
        assert [fold.scores[name] for fold in result.folds] == pytest.approx(scores.tolist(), abs=1e-9)


def test_the_evaluation_is_that_of_the_out_of_fold_probabilities(result):
    plain = fe.evaluate_predictions(Y, result.probabilities[0], n_resamples=200)
    assert result.evaluation.estimates == plain.estimates
    models = result["accuracy"].models
    assert (models.low, models.high) == (plain["accuracy"].low, plain["accuracy"].high)
    assert models.method == "Wilson; central limit theorem for cross-validation"
    assert result["accuracy"].value == plain.accuracy
    assert result.evaluation.calibration is not None
    assert result.evaluation.identified  # by the contents of the rows


WEIGHTS = np.where(np.arange(120) % 10 == 0, 0.0, RANDOM.uniform(0.5, 3, 120))


def weighed(x, y, seed, sample_weight):
    return LogisticRegression(random_state=seed).fit(x, y, sample_weight=sample_weight)


@pytest.fixture(scope="module")
def weighted():
    return fe.cross_evaluate(
        weighed, X, Y, sample_weight=WEIGHTS, repeats=2, groups=np.arange(120) // 3, **QUIET
    )


def test_weights_count_in_the_trainings_and_in_every_metric(weighted):
    for fold, test in enumerate(weighted.fold_of_row[0] == np.arange(5)[:, None]):
        model = LogisticRegression().fit(X[~test], Y[~test], sample_weight=WEIGHTS[~test])
        p, y, w = model.predict_proba(X[test]), Y[test], WEIGHTS[test]
        assert np.allclose(weighted.probabilities[0][test], p, rtol=0, atol=1e-12)
        said, scores = p.argmax(axis=1), weighted.folds[fold].scores
        assert scores["accuracy"] == pytest.approx(metrics.accuracy_score(y, said, sample_weight=w))
        assert scores["f1"] == pytest.approx(metrics.f1_score(y, said, sample_weight=w))
        assert scores["mcc"] == pytest.approx(metrics.matthews_corrcoef(y, said, sample_weight=w))
        assert scores["loss"] == pytest.approx(metrics.log_loss(y, p, sample_weight=w))
        assert scores["roc_auc"] == pytest.approx(metrics.roc_auc_score(y, p[:, 1], sample_weight=w))
    plain = fe.evaluate_predictions(
        Y, weighted.probabilities[0], sample_weight=WEIGHTS, groups=np.arange(120) // 3, n_resamples=200
    )
    assert weighted.evaluation.estimates == plain.estimates
    assert (np.ptp(weighted.fold_of_row.reshape(2, 40, 3), axis=2) == 0).all()  # groups are not parted


def test_rows_of_weight_0_change_no_score(weighted):
    y = np.where(WEIGHTS == 0, 1 - Y, Y)  # wrong labels of rows that do not count
    fold_of_row = weighted.fold_of_row[:, WEIGHTS > 0]
    again = OutOfFold(
        y[WEIGHTS > 0], weighted.probabilities[:, WEIGHTS > 0], fold_of_row, None, "binary",
        WEIGHTS[WEIGHTS > 0], (np.arange(120) // 3)[WEIGHTS > 0],
    ).result(weighted.evaluation, [0.0] * 10, (), 0, {})  # fmt: skip
    for name, estimate in weighted.estimates.items():
        assert again[name].value == pytest.approx(estimate.value, abs=1e-12), name
        assert again[name].recipe.low == pytest.approx(estimate.recipe.low, abs=1e-12), name


def test_weights_are_refused_where_they_cannot_count(tmp_path):
    with pytest.raises(ValueError, match="`sample_weight` needs a `learner` that weighs its rows"):
        fe.cross_evaluate(fit, X, Y, sample_weight=WEIGHTS, **QUIET)
    with pytest.raises(ValueError, match="^`sample_weight` is 0 for every row of fold ., which could judge"):
        fe.cross_evaluate(weighed, X, Y, sample_weight=[1.0] + [0.0] * 119, **QUIET)
    fe.cross_evaluate(weighed, X, Y, folds=2, sample_weight=WEIGHTS + 1, run_dir=tmp_path, **QUIET)
    with pytest.raises(ValueError, match="of other settings: `sample_weight` is another"):
        fe.cross_evaluate(weighed, X, Y, folds=2, sample_weight=WEIGHTS + 2, run_dir=tmp_path, **QUIET)


def test_rows_with_several_labels():
    y = (X[:, :3] + RANDOM.normal(size=(120, 3)) > [0, 0.5, -0.5]).astype(int)
    frame = pd.DataFrame(y, columns=["acting", "plot", "music"])
    asked = {"task": "multilabel", "groups": np.arange(120) // 2, "threshold": [0.5, 0.4, 0.6], **QUIET}
    result = fe.cross_evaluate(
        lambda x, y: OneVsRestClassifier(LogisticRegression()).fit(x, y), X, frame, average="micro", **asked
    )
    p, folds = result.probabilities[0], result.fold_of_row[0]
    plain = fe.evaluate_predictions(
        y, p, labels=list(frame), task="multilabel", groups=np.arange(120) // 2, threshold=[0.5, 0.4, 0.6],
        average="micro", n_resamples=200,
    )  # fmt: skip
    assert result.evaluation.estimates == plain.estimates
    assert (np.ptp(folds.reshape(60, 2), axis=1) == 0).all()
    for fold, test in enumerate(folds == np.arange(5)[:, None]):
        model = OneVsRestClassifier(LogisticRegression()).fit(X[~test], y[~test])
        assert np.allclose(p[test], model.predict_proba(X[test]), rtol=0, atol=1e-12)
        said, scores = (p[test] >= [0.5, 0.4, 0.6]).astype(int), result.folds[fold].scores
        assert scores["accuracy"] == pytest.approx(metrics.accuracy_score(y[test], said))
        assert scores["f1"] == pytest.approx(metrics.f1_score(y[test], said, average="micro"))
        # The library's areas of several labels are the mean over labels, whatever `average` is.
        assert scores["roc_auc"] == pytest.approx(metrics.roc_auc_score(y[test], p[test], average="macro"))
    assert "baselines" not in str(result) and result["f1"].recipe.low < result["f1"].value
    with pytest.raises(ValueError, match="task='multilabel'"):
        fe.cross_evaluate(fit, X, Y, task="multilabel", **QUIET)


def test_areas_of_folds_are_averaged_as_those_of_all_rows():
    y = np.digitize(X[:, 0] + RANDOM.normal(size=120), [-0.5, 0.5])
    result = fe.cross_evaluate(fit, X, y, average="micro", **QUIET)
    for fold, record in enumerate(result.folds):
        test = result.fold_of_row[0] == fold
        p = result.probabilities[0][test]
        theirs = metrics.roc_auc_score(y[test], p, multi_class="ovr", average="macro")
        assert record.scores["roc_auc"] == pytest.approx(theirs)


def test_the_recipes_interval_by_hand(result):
    scores = np.array([fold.scores["accuracy"] for fold in result.folds])
    half = 2.776445 * np.sqrt((1 / 5 + 24 / 96) * scores.var(ddof=1))
    low = min(result["accuracy"].value - half, result["accuracy"].models.low)
    assert result["accuracy"].recipe.low == pytest.approx(low, abs=1e-6)


def test_every_row_is_judged_by_a_model_that_never_saw_it():
    seen = []

    class Model:
        def __init__(self, x):
            self.known = {tuple(row) for row in x}

        def predict_proba(self, x):
            seen.append([tuple(row) in self.known for row in x])
            return np.full((len(x), 2), 0.5)

    fe.cross_evaluate(lambda x, y: Model(x), X, Y, repeats=2, baselines=False, **QUIET)
    assert sum(map(len, seen)) == 240
    assert not any(map(any, seen))


def test_repeats_have_other_folds_and_the_value_is_their_mean():
    result = fe.cross_evaluate(fit, X, Y, repeats=3, **QUIET)
    assert result.probabilities.shape == (3, 120, 2)
    assert not np.array_equal(*result.fold_of_row[:2])
    each = [(p.argmax(axis=1) == Y).mean() for p in result.probabilities]
    assert result["accuracy"].value == pytest.approx(np.mean(each))
    assert [fold.seed for fold in result.folds] == list(range(15))
    assert result["accuracy"].recipe.method.startswith("corrected resampled t over 15 folds")


def test_workers_give_the_same_answers(result, tmp_path):
    several = fe.cross_evaluate(fit, X, Y, workers=2, run_dir=tmp_path, **QUIET)
    assert np.array_equal(several.probabilities, result.probabilities)
    again = fe.cross_evaluate(fit, X, Y, run_dir=tmp_path, **QUIET)  # all that was written is read
    assert [fold.seconds for fold in again.folds] == [fold.seconds for fold in several.folds]


def test_baselines_are_fitted_in_the_same_folds():
    texts = [
        f"{'good' if y else 'bad'} film number {i} about {'a cat' if i % 7 else 'dogs'}"
        for i, y in enumerate(Y)
    ]
    result = fe.cross_evaluate(lambda x, y: Constant(y), texts, Y, features=X, near_duplicates=False, **QUIET)
    majority, words, features = result.evaluation.baselines
    assert majority.estimates["accuracy"].value == (Y == np.bincount(Y).argmax()).mean()
    assert words.estimates["accuracy"].value > 0.9  # the label is in the text
    fold = result.fold_of_row[0]
    from finetune_eval.evaluation.baselines import feature_probabilities

    p = np.empty((120, 2))
    for k in range(5):
        train = fold != k
        p[~train] = feature_probabilities(X[train], Y[train], X[~train], classes=2)
    assert features.estimates["accuracy"].value == (p.argmax(axis=1) == Y).mean()


class Constant:
    def __init__(self, y):
        self.share = y.mean()

    def predict_proba(self, x):
        return np.tile([1 - self.share, self.share], (len(x), 1))


def test_a_wrong_label_is_found_in_rows_that_trained_other_models():
    x = RANDOM.normal(size=(200, 2)) + np.repeat([[-3, 0], [3, 0]], 100, axis=0)
    y = np.repeat([0, 1], 100)
    y[[5, 150]] = 1 - y[[5, 150]]
    result = fe.cross_evaluate(fit, x, y, **QUIET)
    assert set(result.label_errors["id"][:2]) == {5, 150}


def test_classes_that_a_fold_lacks():
    y = np.array(["a"] * 60 + ["b"] * 59 + ["c"])
    result = fe.cross_evaluate(fit, X, y, folds=3, **QUIET)
    assert any("All rows of 'c' are in one fold" in sentence for sentence in result.evaluation.warnings)
    fold = result.fold_of_row[0]
    assert (result.probabilities[0, fold == fold[-1], 2] == 0).all()  # its model had never seen a "c"


def test_two_recipes_are_compared_by_the_corrected_t(result):
    other = fe.cross_evaluate(lambda x, y: Constant(y), X, Y, **QUIET)
    found = fe.compare(result, other)
    differences = [
        a.scores["accuracy"] - b.scores["accuracy"] for a, b in zip(result.folds, other.folds, strict=True)
    ]
    error = np.sqrt((1 / 5 + 1 / 4) * np.var(differences, ddof=1))
    value = result["accuracy"].value - other["accuracy"].value
    assert found.difference.low == pytest.approx(value - 2.776445 * error, abs=1e-6)
    assert found.difference.high == pytest.approx(min(1, value + 2.776445 * error), abs=1e-6)
    assert found.outcome == "cannot tell yet"  # five folds of 24 rows differ much
    assert fe.compare(result, result).outcome == "identical answers"


def test_what_cannot_be_compared(result):
    with pytest.raises(ValueError, match="A is a cross-evaluation and B is none. Compare two of a kind"):
        fe.compare(result, result.evaluation)
    other = fe.cross_evaluate(fit, X, Y, seed=1, **QUIET)
    with pytest.raises(ValueError, match="A and B were cross-evaluated on different folds."):
        fe.compare(result, other)
    with pytest.raises(
        ValueError, match="`average` must be that of the cross-evaluations, 'binary'; got 'macro'."
    ):
        fe.compare(result, result, metric="f1", average="macro")


def test_text_and_files(result, tmp_path):
    text = str(result)
    assert "120 rows, 5 folds: each row was judged by a model that was trained on 96 others." in text
    assert "these models       this recipe" in text
    assert "expected to be\nslightly better" in text or "slightly better" in text
    assert max(map(len, text.splitlines())) <= 80
    result.save(tmp_path / "kept")
    back = fe.CrossEvaluation.load(tmp_path / "kept")
    assert back.evaluation == result.evaluation and back.folds == result.folds
    assert back.estimates == result.estimates
    assert np.array_equal(back.probabilities, result.probabilities)
    assert fe.compare(back, result).outcome == "identical answers"


# --- a study that goes on ---------------------------------------------------------------------------------


def test_an_interrupted_study_goes_on_with_the_fold_it_was_in(tmp_path, result):
    calls = CALLS
    calls.clear()

    def interrupted(x, y, seed):
        CALLS.append(seed)
        if CALLS == [0, 1, 2]:
            raise KeyboardInterrupt
        return LogisticRegression(random_state=seed).fit(x, y)

    with pytest.raises(KeyboardInterrupt):
        fe.cross_evaluate(interrupted, X, Y, run_dir=tmp_path / "run", **QUIET)
    again = fe.cross_evaluate(interrupted, X, Y, run_dir=tmp_path / "run", **QUIET)
    assert calls == [0, 1, 2, 2, 3, 4]
    assert np.array_equal(again.probabilities, result.probabilities)


def test_a_killed_study_goes_on(tmp_path):
    code = f"""
        import os, signal, sys
        import numpy as np
        import finetune_eval as fe
        from sklearn.linear_model import LogisticRegression
        random = np.random.default_rng(0)
        x = random.normal(size=(60, 3))
        def fit(x, y, seed):
            print(seed, flush=True)
            if seed == 3 and not os.path.exists({str(tmp_path / "killed")!r}):
                open({str(tmp_path / "killed")!r}, "w").close()
                os.kill(os.getpid(), signal.SIGKILL)
            return LogisticRegression().fit(x, y)
        fe.cross_evaluate(fit, x, x[:, 0] > 0, run_dir={str(tmp_path / "run")!r}, verbose=False,
        n_resamples=100)
    """
    runs = [
        subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True)
        for _ in range(2)
    ]
    assert runs[0].returncode == -signal.SIGKILL
    assert runs[1].returncode == 0, runs[1].stderr
    assert [run.stdout.split() for run in runs] == [["0", "1", "2", "3"], ["3", "4"]]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seed": 1}, "`seed` was 0 and is 1 now"),
        ({"folds": 4}, "`folds` was 3 and is 4 now"),
        ({"near_duplicates": False}, "`near_duplicates` was True and is False now"),
        ({"x": X[::-1]}, "`rows` are others"),
        ({"learner": functools.partial(fit, seed=3)}, "`learner` is another"),
    ],
)
def test_other_settings_are_refused(tmp_path, change, said):
    arguments = {"learner": fit, "x": X, "y": Y, "folds": 3, "run_dir": tmp_path / "run", "baselines": False}
    fe.cross_evaluate(**arguments, **QUIET)
    with pytest.raises(ValueError) as error:
        fe.cross_evaluate(**{**arguments, **change}, **QUIET)
    assert said in str(error.value)


def test_a_damaged_fold_is_named(tmp_path):
    fe.cross_evaluate(fit, X, Y, folds=3, run_dir=tmp_path, **QUIET)
    path = tmp_path / "repeat-1-fold-2.json"
    record = json.loads(path.read_text())
    record["probabilities"]["float64"] = "AAAA" + record["probabilities"]["float64"][4:]
    path.write_text(json.dumps(record))
    with pytest.raises(ValueError, match=r"repeat-1-fold-2\.json.* is damaged or was changed"):
        fe.cross_evaluate(fit, X, Y, folds=3, run_dir=tmp_path, **QUIET)


def test_more_repeats_go_on_from_fewer(tmp_path):
    first = fe.cross_evaluate(fit, X, Y, folds=3, run_dir=tmp_path, **QUIET)
    more = fe.cross_evaluate(fit, X, Y, folds=3, repeats=2, run_dir=tmp_path, **QUIET)
    assert np.array_equal(more.probabilities[0], first.probabilities[0])


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="holds other files, and no cross-evaluation"):
        fe.cross_evaluate(fit, X, Y, run_dir=tmp_path, **QUIET)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes.txt"]


def test_functions_are_told_apart_by_what_they_do():
    def maker(c):
        return lambda x, y: LogisticRegression(C=c).fit(x, y)

    assert function_hash(maker(1.0)) == function_hash(maker(1.0))
    assert function_hash(maker(1.0)) != function_hash(maker(2.0))
    assert function_hash(functools.partial(fit, seed=1)) != function_hash(functools.partial(fit, seed=2))


# --- what is refused --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "kind", "said"),
    [
        ({"learner": 3}, TypeError, "`learner` must be the name of a backbone, a function of a seed that"),
        ({"learner": LogisticRegression}, TypeError, "got type."),
        ({"learner": lambda: 0}, TypeError, "this one has 0 arguments that must be given"),
        ({"learner": lambda x, y: 3}, TypeError, "must return a model with a `predict`"),
        ({"recipe": {"epochs": 2}}, ValueError, "`learner` is a function that fits by itself"),
        ({"folds": 1}, ValueError, "`folds` must be at least 2; got 1."),
        ({"folds": 121}, ValueError, "`folds` must be at most the 120 rows; got 121."),
        ({"y": Y[:-1]}, ValueError, "`x` and `y` must have the same number of rows; got 120 and 119."),
        (
            {"features": X[:5]},
            ValueError,
            "`x` and `features` must have the same number of rows; got 120 and 5.",
        ),
        ({"confidence": 2}, ValueError, "`confidence` must be a finite number above 0 and below 1; got 2."),
        (
            {"keep_models": True, "run_dir": "nowhere"},
            ValueError,
            "`keep_models` with `run_dir` needs Keras models",
        ),
    ],
)
def test_refusals_before_anything_is_trained(change, kind, said):
    arguments = {"learner": fit, "x": X, "y": Y, **change}
    with pytest.raises(kind) as error:
        fe.cross_evaluate(**arguments, **QUIET)
    assert said in str(error.value)


def test_probabilities_of_another_shape_are_refused():
    class Wide:
        def predict_proba(self, x):
            return np.full((len(x), 3), 1 / 3)

    with pytest.raises(ValueError, match=r"shape \(24, 3\); 24 rows of 2 classes need \(24, 2\)."):
        fe.cross_evaluate(lambda x, y: Wide(), X, Y, **QUIET)


def test_no_tensorflow_where_none_is_trained():
    code = (
        "import sys, numpy as np, finetune_eval as fe\n"
        "from sklearn.linear_model import LogisticRegression\n"
        "x = np.random.default_rng(0).normal(size=(40, 2))\n"
        "fe.cross_evaluate(lambda x, y: LogisticRegression().fit(x, y), x, x[:, 0] > 0, n_resamples=100)\n"
        "assert not {'tensorflow', 'keras'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize("labels", [None, ["a", "b", "c"]])
def test_rows_with_several_labels_need_the_task(labels):
    y = np.ones((120, 3), dtype=int)
    with pytest.raises(ValueError, match="row 0 has 3 of 3 labels. Pass `task='multilabel'`.$"):
        fe.cross_evaluate(fit, X, y, labels=labels, **QUIET)
    with pytest.raises(ValueError, match="A learning curve is of rows with one class each; `cross_evaluate`"):
        fe.learning_curve(fit, X, y, labels=labels, verbose=False)
