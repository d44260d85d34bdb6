"""How well, how fast and in how much memory find_leaks finds planted near-duplicates.

    python benchmarks/leakage.py             three sizes, the largest 200,000 + 50,000 rows
    python benchmarks/leakage.py --engines   our MinHash beside rensa and datasketch, where they are installed
    python benchmarks/leakage.py --boilerplate   the worst case: rows that share 40 of their 48 words
    python benchmarks/leakage.py --short     short texts with a word changed, and templates

All but the third print a Markdown table. Rows are made of 20,000 words with Zipf frequencies, 15 to 60 each.
One test row in a hundred is a training row with words changed so that the true Jaccard similarity of their
character 5-grams is 0.85 or more; another in a hundred is a decoy between 0.5 and 0.78. Every size runs in a
process of its own. CPU seconds stand beside wall seconds: a shared machine stretches only the latter.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import resource
import subprocess
import sys
import time

import numpy as np

from finetune_eval.data import leakage, minhash
from finetune_eval.data.ledger import normalise

SIZES = ((50_000, 12_500), (100_000, 25_000), (200_000, 50_000))
VOCABULARY = 20_000


def similarity(a: str, b: str) -> float:
    """The definition, written independently of the library."""
    first, second = ({text[i : i + 5] for i in range(len(text) - 4)} for text in (normalise(a), normalise(b)))
    return len(first & second) / len(first | second)


def vocabulary(rng: np.random.Generator) -> np.ndarray:
    letters = np.array(list("etaoinshrdlucmfwypvbgk"))
    return np.array(
        ["".join(rng.choice(letters, rng.integers(2, 10))) for _ in range(VOCABULARY)], dtype=object
    )


def rows(n: int, words: np.ndarray, rng: np.random.Generator) -> list[str]:
    frequency = 1 / np.arange(1, len(words) + 1)
    lengths = rng.integers(15, 61, n)
    drawn = words[rng.choice(len(words), lengths.sum(), p=frequency / frequency.sum())]
    ends = np.cumsum(lengths)
    return [" ".join(drawn[end - length : end]) for end, length in zip(ends, lengths, strict=True)]


def edited(text: str, low: float, high: float, words: np.ndarray, rng: np.random.Generator) -> str:
    """Change words of a text until its similarity to the original is in [low, high)."""
    while True:
        new = text.split()
        share = rng.uniform(0, 1.2 * (1 - low) / (1 + low))
        for place in rng.choice(len(new), max(1, round(share * len(new))), replace=False):
            new[place] = words[rng.integers(len(words))]
        if low <= similarity(text, " ".join(new)) < high:
            return " ".join(new)


def run(n_train: int, n_test: int, seed: int) -> dict[str, float]:
    rng = np.random.default_rng(seed)
    words = vocabulary(rng)
    train, test = rows(n_train, words, rng), rows(n_test, words, rng)
    planted, decoys = np.split(rng.choice(n_test, 2 * (n_test // 100), replace=False), 2)
    for places, low, high in ((planted, 0.85, 1.0), (decoys, 0.5, 0.78)):
        for place in places:
            test[place] = edited(train[rng.integers(n_train)], low, high, words, rng)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started, worked = time.perf_counter(), time.process_time()
    leaks = leakage.find_leaks(train, test)
    seconds, cpu = time.perf_counter() - started, time.process_time() - worked
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    right = [
        kind == "edited" or similarity(test[row], train[other]) >= leaks.threshold
        for row, other, kind in zip(leaks.test_rows, leaks.train_rows, leaks.kind, strict=True)
    ]
    return {
        "train": n_train,
        "test": n_test,
        "planted": len(planted),
        "found": len(leaks),
        "recall": float(np.isin(planted, leaks.test_rows).mean()),
        "precision": float(np.mean(right)),
        "decoys": int(np.isin(decoys, leaks.test_rows).sum()),
        "seconds": seconds,
        "cpu": cpu,
        "before": before / 1e6,
        "peak": peak / 1e6,
    }


def growth(seed: int) -> None:
    print(
        "| training + test | planted | found | recall | precision | decoys taken | seconds (CPU) | peak RSS |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for n_train, n_test in SIZES:
        command = [sys.executable, __file__, "--one", str(n_train), str(n_test), "--seed", str(seed)]
        got = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        print(
            f"| {n_train:,} + {n_test:,} | {got['planted']:.0f} | {got['found']:.0f} | {got['recall']:.4f} | "
            f"{got['precision']:.4f} | {got['decoys']:.0f} | {got['seconds']:.1f} ({got['cpu']:.1f}) | "
            f"{got['peak']:.2f} GB ({got['before']:.2f} before) |",
            flush=True,
        )


def boilerplate(seed: int, n_train: int = 40_000, n_test: int = 10_000) -> None:
    rng = np.random.default_rng(seed)
    words = vocabulary(rng)
    common = " ".join(rng.choice(words, 40))
    train, test = (
        [f"{common} {' '.join(tail)}" for tail in rng.choice(words, (n, 8))] for n in (n_train, n_test)
    )
    planted = rng.choice(n_test, n_test // 100, replace=False)
    for place in planted:
        test[place] = edited(train[rng.integers(n_train)], 0.85, 1.0, words, rng)
    typical = np.mean([similarity(a, b) for a, b in zip(train[:1_000], test, strict=False)])
    started, worked = time.perf_counter(), time.process_time()
    leaks = leakage.find_leaks(train, test)
    seconds, cpu = time.perf_counter() - started, time.process_time() - worked
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(
        f"{n_train:,} + {n_test:,} rows of mean similarity {typical:.2f}: {seconds:.0f} s ({cpu:.0f} s "
        f"of CPU), {peak:.2f} GB; planted copies of 0.85 and more found: "
        f"{np.isin(planted, leaks.test_rows).mean():.2f}; {leaks.crowded:,} rows reported as crowded."
    )


def changed(words_: list[str], how: str, pool: np.ndarray, rng: np.random.Generator) -> list[str]:
    """Change one of the words (or two side by side) of a text."""
    out, place = list(words_), int(rng.integers(len(words_)))
    if how == "changed":
        out[place] = str(pool[rng.integers(len(pool))])
    elif how == "left out":
        del out[place]
    elif how == "added":
        out.insert(place, str(pool[rng.integers(len(pool))]))
    elif how == "two side by side":
        place = min(place, len(out) - 2)
        out[place : place + 2] = [str(word) for word in rng.choice(pool, 2)]
    else:  # a typing error: two letters change places
        word = out[place]
        at = int(rng.integers(max(1, len(word) - 1)))
        out[place] = word[:at] + word[at : at + 2][::-1] + word[at + 2 :] if len(word) > 1 else word + word
    return out


def short(seed: int, n_train: int = 3_000, copies: int = 300) -> None:
    """Copies of short texts, fresh texts and filled-in forms, in words of three kinds.

    The rule was chosen on the first kind (and on sentences of the embedded reviews); the others only judge.
    """
    rng = np.random.default_rng(seed)
    syllables = np.array([a + b + c for a in "bdfgklmnprst" for b in "aeiou" for c in ("", "n", "ra", "lis")])
    kinds = {
        "Zipf words (chosen)": (vocabulary(rng), True, " "),
        "300 syllables (held out)": (np.array(sorted(set(syllables)))[:300], False, " "),
        "2,000 Chinese characters (held out)": (np.array([chr(0x4E00 + i) for i in range(2_000)]), False, ""),
    }
    hows = ("changed", "left out", "added", "typing error", "two side by side", "fresh")
    print(f"Share found of {copies} test rows against {n_train:,} training rows.\n")
    print(f"| Texts | Words | {' | '.join(hows)} |\n|---|---|{'---|' * len(hows)}")
    for name, (pool, zipf, space) in kinds.items():
        frequency = 1 / np.arange(1, len(pool) + 1) if zipf else np.ones(len(pool))
        for size in (6, 7, 8, 12, 16, 24):
            drawn = rng.choice(pool, (n_train, size), p=frequency / frequency.sum())
            train = [space.join(row) for row in drawn]
            shares = []
            for how in hows:
                if how == "fresh":
                    test = [
                        space.join(row)
                        for row in rng.choice(pool, (copies, size), p=frequency / frequency.sum())
                    ]
                else:
                    test = [space.join(changed(list(row), how, pool, rng)) for row in drawn[:copies]]
                leaks = leakage.find_leaks(train, test)
                shares.append(f"{len(leaks) / copies:.3f}")
            print(f"| {name} | {size} | {' | '.join(shares)} |", flush=True)
    order = (
        "Dear customer, your order {} has been shipped and will arrive on {} between 9 and 17. Thank you for "
        "choosing our shop; reply STOP to unsubscribe."
    )
    forms = {
        "an order, 24 words": order,
        "a code, 8 words": "your code is {} do not share it",
        "a balance, 11 words": "the balance of your account ending in {} is {} today",
    }
    print(
        "\n| Form | leaks of 200 test rows | rows of a template | 20 true copies found |\n|---|---|---|---|"
    )
    for name, form in forms.items():
        filled = [form.format(rng.integers(10**5, 10**6), rng.integers(1, 29)) for _ in range(700)]
        train, test = filled[:500], filled[500:]
        leaks = leakage.find_leaks(train, test)
        copies_of = [*train[:10], *(text.upper() for text in train[10:20])]
        again = np.isin(np.arange(20), leakage.find_leaks(train, [*copies_of, *test]).test_rows).sum()
        print(f"| {name} | {len(leaks)} | {len(leaks.template_rows)} | {again} |")


def engines(seed: int, n: int = 20_000) -> None:
    """Time the signatures of n rows (128 values) and measure the error of the similarity they estimate."""
    rng = np.random.default_rng(seed)
    words = vocabulary(rng)
    texts = [normalise(text) for text in rows(n, words, rng)]
    pairs = [edited(text, 0.5, 1.0, words, rng) for text in texts[:1_000]]
    truth = np.array([similarity(a, b) for a, b in zip(texts, pairs, strict=False)])
    theory = np.sqrt((truth * (1 - truth) / 128).mean())

    def grams(rows_: list[str]) -> list[list[str]]:
        return [[text[i : i + 5] for i in range(len(text) - 4)] for text in rows_]

    def ours(rows_: list[str]) -> np.ndarray:
        return minhash.signatures(rows_)

    def rensa(rows_: list[str]) -> np.ndarray:
        from rensa import RMinHash

        return np.array(RMinHash.digest_matrix_from_token_sets(grams(rows_), 128, 42).to_rows())

    def datasketch(rows_: list[str]) -> np.ndarray:
        from datasketch import MinHash

        tokens = [[gram.encode() for gram in row] for row in grams(rows_)]
        return np.array([sketch.hashvalues for sketch in MinHash.bulk(tokens, num_perm=128)])

    print(f"| MinHash | rows a second | error of the similarity, RMS (theory {theory:.4f}) |\n|---|---|---|")
    for engine in (ours, rensa, datasketch):
        if engine is not ours and importlib.util.find_spec(engine.__name__) is None:
            continue
        timed = texts if engine is not datasketch else texts[: n // 10]
        best = float("inf")
        for _ in range(3):
            started = time.perf_counter()
            signatures = engine(timed)
            best = min(best, time.perf_counter() - started)
        estimate = (signatures[:1_000] == engine(pairs)).mean(axis=1)
        error = np.sqrt(((estimate - truth) ** 2).mean())
        print(f"| {engine.__name__} | {len(timed) / best:,.0f} | {error:.4f} |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--engines", action="store_true")
    parser.add_argument("--boilerplate", action="store_true")
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--one", nargs=2, type=int, metavar=("TRAIN", "TEST"), help="one size, as JSON")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(run(*options.one, options.seed)))
    elif options.boilerplate:
        boilerplate(options.seed)
    elif options.short:
        short(options.seed)
    elif options.engines:
        engines(options.seed)
    else:
        growth(options.seed)
