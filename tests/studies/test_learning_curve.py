"""Learning curves: which rows train, which judge, and what is said of more rows."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

import finetune_eval as fe

RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(400, 12))
Y = (X @ RANDOM.normal(size=12) + 2 * RANDOM.normal(size=400) > 0).astype(int)
SEEN = []


def fit(x, y):
    return LogisticRegression().fit(x, y)


@pytest.fixture(scope="module")
def curve():
    return fe.learning_curve(fit, X, Y, verbose=False)


def test_sizes_are_nested_stratified_and_never_judge_themselves():
    class Model:
        def __init__(self, x, y):
            self.rows = {tuple(row) for row in x}
            self.share = y.mean()

        def predict_proba(self, x):
            SEEN.append((self.rows, {tuple(row) for row in x}, self.share))
            return np.tile([1 - self.share, self.share], (len(x), 1))

    SEEN.clear()
    fe.learning_curve(lambda x, y: Model(x, y), X, Y, verbose=False)
    assert len(SEEN) == 20
    for repeat in range(5):
        trained = [rows for rows, _, _ in SEEN[4 * repeat : 4 * repeat + 4]]
        judged = [rows for _, rows, _ in SEEN[4 * repeat : 4 * repeat + 4]]
        assert [len(rows) for rows in trained] == [40, 80, 160, 320]
        assert trained[0] < trained[1] < trained[2] < trained[3]
        assert judged[0] == judged[3] and not judged[0] & trained[3]
    assert len(set().union(*(rows for _, rows, _ in SEEN))) == 400  # every row judged
    assert all(abs(share - Y.mean()) < 1 / 40 for _, _, share in SEEN)


def test_points_are_means_over_repeats(curve):
    assert [point.n_train for point in curve.points] == [40, 80, 160, 320]
    for point in curve.points:
        assert point.estimate.value == pytest.approx(np.mean(point.scores))
        assert point.estimate.low < point.estimate.value < point.estimate.high
    assert curve.points[3].estimate.value > curve.points[0].estimate.value


def test_more_rows_are_no_worse_and_far_away_is_unknown(curve):
    values = [curve.more(n).estimate for n in (400, 800, 1600)]
    assert values[0].value <= values[1].value <= values[2].value
    assert values[2].high - values[2].low > values[0].high - values[0].low
    assert curve.more(1601).estimate is None
    assert str(curve.more(1601)) == "1,601 rows: unknown"
    assert curve.gain(1601) is None
    gain = curve.gain(800)
    assert 0 <= gain.low <= gain.value <= gain.high
    with pytest.raises(ValueError, match="`n` must be at least 40; got 39."):
        curve.more(39)


def test_a_true_power_law_is_foretold():
    """A learner whose errors are drawn from 0.1 + 1.6 n^-1/2, so that 0.18 with 400 rows becomes 0.14 with "
    "1,600."""
    random = np.random.default_rng(1)

    class Model:
        def __init__(self, n):
            self.error = 0.1 + 1.6 / np.sqrt(n)

        def predict_proba(self, x):
            truth = x[:, 0].astype(int)
            answer = np.where(random.random(len(x)) < self.error, 1 - truth, truth)
            return np.column_stack([1 - answer, answer]).astype(float)

    y = np.tile([0, 1], 1000)
    x = np.column_stack([y, np.arange(2000)]).astype(float)
    curve = fe.learning_curve(lambda x, y: Model(len(x)), x, y, verbose=False)
    now, then = curve.more(2000).estimate, curve.more(8000).estimate
    assert now.low <= 1 - (0.1 + 1.6 / np.sqrt(2000)) <= now.high
    assert then.low <= 1 - (0.1 + 1.6 / np.sqrt(8000)) <= then.high


def test_the_sentence(curve):
    assert curve.sentence.startswith("400 → 800 labels: +")
    text = str(curve)
    assert max(map(len, text.splitlines())) <= 80
    assert "320  0." in text and "expected" in text
    reached = fe.learning_curve(fit, X, Y, goal=0.6, verbose=False)
    assert "0.60 is reached with about" in reached.sentence
    never = fe.learning_curve(fit, X, Y, goal=0.999, verbose=False)
    assert "; to reach 1.00 more than 1,600." in never.sentence
    assert fe.learning_curve(fit, X, Y, metric="loss", verbose=False).sentence.startswith(
        "400 → 800 labels: -0."
    )


def test_rows_of_a_test_set_judge_every_repeat():
    curve = fe.learning_curve(fit, X[:300], Y[:300], test=(X[300:], Y[300:]), repeats=2, verbose=False)
    assert [point.n_train for point in curve.points] == [38, 75, 150, 300]
    assert curve.n_judged == 100 and curve.n == 300
    last = (fit(X[:300], Y[:300]).predict(X[300:]) == Y[300:]).mean()
    assert curve.points[-1].estimate.value == pytest.approx(last, abs=1e-9)


def test_groups_stay_on_one_side():
    groups = np.arange(400) // 4
    SEEN.clear()

    class Model:
        def __init__(self, x):
            self.groups = set(x[:, -1])

        def predict_proba(self, x):
            SEEN.append(self.groups & set(x[:, -1]))
            return np.full((len(x), 2), 0.5)

    x = np.column_stack([X, groups])
    fe.learning_curve(lambda x, y: Model(x), x, Y, groups=groups, verbose=False)
    assert len(SEEN) == 20 and not any(SEEN)


def test_it_goes_on_where_it_was_cut_short(tmp_path, curve):
    SEEN.clear()

    def cut(x, y):
        SEEN.append(len(x))
        if len(SEEN) == 3:
            raise KeyboardInterrupt
        return LogisticRegression().fit(x, y)

    with pytest.raises(KeyboardInterrupt):
        fe.learning_curve(cut, X, Y, run_dir=tmp_path, verbose=False)
    again = fe.learning_curve(cut, X, Y, run_dir=tmp_path, verbose=False)
    assert SEEN[:4] == [40, 80, 160, 160]
    assert again.points == curve.points
    with pytest.raises(ValueError, match="`sizes` was"):
        fe.learning_curve(cut, X, Y, sizes=(0.5, 1.0), run_dir=tmp_path, verbose=False)


def test_it_is_drawn_into_axes_of_the_callers(curve):
    from matplotlib.figure import Figure

    ax = Figure().subplots()
    assert curve.plot(ax=ax) is ax
    assert ax.get_ylabel() == "accuracy" and len(ax.lines) >= 2


@pytest.mark.parametrize(
    ("change", "kind", "said"),
    [
        ({"sizes": (0.5,)}, ValueError, "`sizes` must be at least two sizes"),
        (
            {"sizes": (0.5, 0.25)},
            ValueError,
            "`sizes` must ascend from at least 2 rows; got 160, 80 of 320 rows.",
        ),
        ({"sizes": (10, 500)}, ValueError, "`sizes` must be at most 320; got 500."),
        ({"repeats": 1}, ValueError, "`repeats` must be at least 2; got 1."),
        ({"metric": "f1"}, ValueError, "`metric` must be one of 'accuracy', 'loss', 'brier'; got 'f1'."),
        ({"goal": 1.5}, ValueError, "`goal` must be a finite number above 0 and below 1; got 1.5."),
        ({"test": 3}, TypeError, "`test` must be a pair (x, y)"),
        ({"test": (X[:, :3], Y)}, ValueError, "`test` has rows of shape (3,); those of `x` are (12,)."),
        ({"y": Y[:-1]}, ValueError, "`x` and `y` must have the same number of rows; got 400 and 399."),
    ],
)
def test_refusals(change, kind, said):
    with pytest.raises(kind) as error:
        fe.learning_curve(**{"learner": fit, "x": X, "y": Y, "verbose": False, **change})
    assert said in str(error.value)
