"""The count of looks at a test set: across processes, and what it calls optimistic."""

import json
import math
import stat
import subprocess
import sys
import time
import tracemalloc
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from finetune_eval.evaluation.evaluate import Evaluation, evaluate, evaluate_predictions
from finetune_eval.evaluation.lockbox import home, look
from finetune_eval.evaluation.seeds import expected_best_of

TEXTS = [f"text {i}" for i in range(100)]
Y = np.arange(100) % 2


def scored(right, texts=TEXTS, order=None, shift=0.0):
    """An evaluation with the first `right` rows right."""
    p = np.where((np.arange(100) < right) == (Y == 1), 0.9, 0.1) + shift
    order = np.arange(100) if order is None else order
    return evaluate_predictions(Y[order], p[order], texts=[texts[i] for i in order], baselines=False)


def test_looks_are_counted_and_the_best_of_several_is_optimistic(tmp_path):
    first = look(scored(80), tmp_path)
    assert (first.count, first.models, first.optimistic) == (1, 1, False)
    assert first.verdict == "First recorded look at these test rows."
    again = look(scored(80), tmp_path)
    assert (again.count, again.models, again.optimistic) == (2, 1, False)
    assert again.verdict.endswith("always with the same model.")
    worse = look(scored(70), tmp_path)
    assert (worse.count, worse.models, worse.optimistic) == (3, 2, False)
    best = look(scored(90), tmp_path)
    assert (best.count, best.models, best.optimistic) == (4, 3, True)
    # Expected best of three equal models: 0.84628 standard deviations (3 / (2 sqrt(pi))). The errors of the
    # three lie in each other: phi of 70 and 80 right is (.2 - .3 * .2) / sqrt(.3 * .7 * .2 * .8), and so on.
    shares = 0.3, 0.2, 0.1
    phi = [(min(p, q) - p * q) / math.sqrt(p * (1 - p) * q * (1 - q)) for p, q in combinations(shares, 2)]
    assert best.correlation == pytest.approx(np.mean(phi), abs=0.2)  # 25 parts of four rows: about .1 off
    free = 3 / (2 * math.sqrt(math.pi)) * math.sqrt(0.9 * 0.1 / 100)
    assert best.luck == pytest.approx(free * math.sqrt(1 - best.correlation), rel=0.02)
    assert "4 times" in best.verdict and "with 3 models" in best.verdict
    assert (
        f"If the 3 models were equally good, the best of them would look about {100 * best.luck:.1f} points "
        "too good by luck "
        f"(their errors correlate by {best.correlation:.2f})." in best.verdict
    )
    assert max(map(len, str(best).splitlines())) <= 80


@pytest.mark.parametrize("n", [200, 2000])
def test_the_luck_of_the_best_is_that_of_models_whose_errors_correlate(tmp_path, n):
    # Five equal models, 80 % right, most of whose luck is the row's own: the truth is drawn.
    random = np.random.default_rng(1)

    def models(k):
        shared = random.normal(size=(n, 1))
        return np.sqrt(0.8) * shared + np.sqrt(0.2) * random.normal(size=(n, k)) < 0.8416

    right = models(5)
    truth = np.mean([models(5).mean(axis=0).max() - 0.8 for _ in range(1000)])
    y = random.integers(0, 2, n)
    for j in np.argsort(right.mean(axis=0)):
        p = np.where(right[:, j], 0.8 - 0.01 * j, 0.2)
        found = look(
            evaluate_predictions(y, np.where(y == 1, p, 1 - p), ids=range(n), baselines=False), tmp_path
        )
    phi = np.corrcoef(right.T)[np.triu_indices(5, 1)].mean()
    assert found.correlation == pytest.approx(phi, abs=0.15 if n == 200 else 0.1)
    assert found.luck == pytest.approx(truth, rel=0.3)
    assert found.luck < 0.75 * expected_best_of(5) * math.sqrt(0.16 / n)  # what independent errors would give
    entries = [json.loads(line) for line in (tmp_path / "looks.jsonl").read_text().splitlines()]
    # No row's own result is kept: each number counts four rows or more.
    assert all(len(entry["wrong"]) <= n / 4 for entry in entries)
    assert [sum(entry["wrong"]) for entry in entries] == sorted((~right).sum(axis=0), reverse=True)


def test_looks_of_older_versions_and_damaged_lines_are_read(tmp_path):
    first = look(scored(70), tmp_path)
    path = tmp_path / "looks.jsonl"
    (line,) = map(json.loads, path.read_text().splitlines())
    del line["wrong"], line["checksum"]  # as versions before wrote it
    damaged = ["5", "null", '"text"', "[1]", '{"rows": "' + first.rows + '"}', '{"rows": 3, "model": 1', ""]
    path.write_text("\n".join([json.dumps(line), *damaged]) + "\n")
    best = look(scored(90), tmp_path)
    assert (best.count, best.models, best.optimistic, best.correlation) == (2, 2, True, None)
    # Expected best of two: 1 / sqrt(pi) standard deviations
    assert best.luck == pytest.approx(math.sqrt(0.9 * 0.1 / 100 / math.pi), rel=0.02)
    assert "at most 1.7 points too good by luck; less, if they err on the same rows." in best.verdict
    third = look(scored(95), tmp_path)
    assert (third.count, third.models) == (3, 3) and third.correlation is not None


def test_the_order_of_rows_and_rounding_do_not_make_another_test_set_or_model(tmp_path):
    look(scored(80), tmp_path)
    order = np.random.default_rng(0).permutation(100)
    assert (looks := look(scored(80, order=order), tmp_path)).count == 2 and looks.models == 1
    assert look(scored(80, shift=1e-7), tmp_path).models == 1
    assert look(scored(80, shift=1e-2), tmp_path).models == 2
    assert look(scored(80, texts=[text + "!" for text in TEXTS]), tmp_path).count == 1


def test_writers_in_several_processes_lose_nothing(tmp_path):
    path = tmp_path / "looks.jsonl"
    code = (
        "import sys, pathlib\n"
        "from finetune_eval.evaluation.lockbox import _append\n"
        "for i in range(100):\n"
        "    entry = {'rows': 'x', 'model': sys.argv[1], 'i': i, 'padding': 'y' * 5000, 'time': ''}\n"
        "    entry['accuracy'] = 1\n"
        "    print(_append(pathlib.Path(sys.argv[2]), entry)[0])"
    )
    workers = [
        subprocess.Popen([sys.executable, "-c", code, str(k), str(path)], stdout=subprocess.PIPE, text=True)
        for k in range(4)
    ]
    counts = [int(count) for worker in workers for count in worker.communicate()[0].split()]
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    assert sorted((entry["model"], entry["i"]) for entry in entries) == [
        (str(k), i) for k in range(4) for i in range(100)
    ]
    assert sorted(counts) == list(range(1, 401))  # each writer saw its own line and all before it


def test_a_torn_line_costs_only_itself(tmp_path):
    look(scored(80), tmp_path)
    with open(tmp_path / "looks.jsonl", "a") as file:
        file.write('{"rows": "half a li')
    assert look(scored(80), tmp_path).count == 2
    assert look(scored(80), tmp_path).count == 3


def test_lines_that_are_no_looks_are_passed_over(tmp_path):
    first = look(scored(80), tmp_path)
    path = tmp_path / "looks.jsonl"
    whole = json.loads(path.read_text())
    lines = ["5", "null", "[]", '"text"', "{}", "{" * 100_000, '{"rows": 5}', "\0\0", ""]
    lines += [json.dumps({name: value for name, value in whole.items() if name != gone}) for gone in whole]
    lines += [json.dumps({**whole, "rows": "of others"}), json.dumps({**whole, "accuracy": "high"})]
    path.write_bytes("\n".join([*lines, path.read_text()]).encode())
    again = look(scored(80), tmp_path)
    # Looks are the whole line, this one, the one without a checksum (as older versions wrote it), and those
    # that lack or change what the checksum alone tells: n, loss, wrong, accuracy. No other model is known.
    assert (again.count, again.models, again.first) == (3 + 4, 1, first.first)


def test_a_flipped_bit_makes_no_better_model(tmp_path):
    look(scored(80), tmp_path)
    path = tmp_path / "looks.jsonl"
    path.write_text(path.read_text().replace('"accuracy": 0.8', '"accuracy": 0.9'))
    changed = look(scored(70), tmp_path)
    assert (changed.count, changed.models, changed.best) == (2, 1, True)


def test_looks_at_other_rows_cost_nothing(tmp_path):
    one = json.dumps(
        {"time": "2026-01-01", "rows": "f" * 16, "model": "a", "n": 9, "accuracy": 0.5, "loss": 1.0}
    )
    (tmp_path / "looks.jsonl").write_text(f"{one}\n" * 200_000)
    tracemalloc.start()
    began = time.process_time()
    assert look(scored(80), tmp_path).count == 1
    seconds, (_, peak) = time.process_time() - began, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5e6 and seconds < 1, (peak, seconds)  # 260 MB and 1.3 s where every line is parsed


def test_a_home_that_cannot_be_written_costs_no_evaluation(tmp_path, monkeypatch):
    (tmp_path / "alice").write_text("a file where the folder should be")
    monkeypatch.setenv("FINETUNE_EVAL_HOME", str(tmp_path / "alice"))
    p = np.where(Y == 1, 0.9, 0.1)
    result = evaluate_predictions(Y, p, texts=TEXTS, lockbox=True)
    assert result.looks is None and result.accuracy == 1
    assert result.warnings[-1] == (
        "This look at the test rows was not counted: the folder of looks (FINETUNE_EVAL_HOME, or "
        "~/.cache/finetune_eval) cannot be written (File exists)."
    )  # results are shared: no path in them
    with pytest.raises(OSError):
        look(result)
    monkeypatch.delenv("FINETUNE_EVAL_HOME")
    monkeypatch.setattr(Path, "home", classmethod(lambda cls: (_ for _ in ()).throw(RuntimeError("no home"))))
    result = evaluate_predictions(Y, p, texts=TEXTS, lockbox=True)
    assert result.looks is None and "(this user has no home folder)" in result.warnings[-1]


def test_evaluate_counts_only_when_asked(tmp_path, monkeypatch):
    monkeypatch.setenv("FINETUNE_EVAL_HOME", str(tmp_path / "home"))
    assert home() == tmp_path / "home"
    p = np.where(Y == 1, 0.9, 0.1)
    assert evaluate_predictions(Y, p, texts=TEXTS).looks is None and not home().exists()
    result = evaluate_predictions(Y, p, texts=TEXTS, lockbox=True)
    assert result.looks.count == 1
    assert evaluate_predictions(Y, p, texts=TEXTS, lockbox=True).looks.count == 2
    assert evaluate_predictions(Y, p, texts=TEXTS, lockbox=tmp_path / "other").looks.count == 1
    assert stat.S_IMODE((home() / "looks.jsonl").stat().st_mode) == 0o600
    assert not any(text in (home() / "looks.jsonl").read_text() for text in ("text 1", "text 99"))
    assert Evaluation.load(result.save(tmp_path / "saved")) == result


def test_the_text_says_optimistic(tmp_path):
    for right in (60, 70, 80):
        result = evaluate_predictions(
            Y, np.where((np.arange(100) < right) == (Y == 1), 0.9, 0.1), texts=TEXTS, lockbox=tmp_path
        )
    assert "! These test rows were looked at 3 times since" in str(result)
    assert "optimistic" in str(result)


def test_numbers_are_known_by_their_contents_and_labels_alone_are_refused(tmp_path):
    class Model:
        labels = ("a", "b")

        def predict(self, x):
            return np.column_stack([1 - x[:, 0], x[:, 0]])

    x = np.random.default_rng(0).random((100, 3))
    assert evaluate(Model(), x, Y, lockbox=tmp_path).looks.count == 1
    assert evaluate(Model(), x, Y, lockbox=tmp_path).looks.count == 2
    assert evaluate(Model(), x[::-1], Y[::-1], lockbox=tmp_path).looks.count == 1
    with pytest.raises(ValueError, match="`lockbox` needs `texts` or `ids`"):
        evaluate_predictions(Y, x[:, 0], lockbox=tmp_path)
    assert evaluate_predictions(Y, x[:, 0], ids=np.arange(100) + 7, lockbox=tmp_path).looks.count == 1
