"""600 labelled reviews and no row to spare: how good is the recipe? Two to three minutes on two cores.

Run it: python examples/cross_evaluate.py
"""

import time

import finetune_eval as fe

# Only 600 labelled reviews are there. A test set of a fifth would be 120 rows, and leave 480 to learn from.
reviews = fe.load_dataset("movie_reviews/rotten_tomatoes", train=600, validation=200, test=200, seed=0)
x, y = reviews.train


# Every review is judged by a model that was fine-tuned on the other folds.
began = time.perf_counter()
tuned = fe.cross_evaluate("all_minilm_l6_v2", x, y, recipe={"epochs": 2}, keep_models=True)
print(f"{time.perf_counter() - began:.0f} s\n")
print(tuned)


# A head alone, on a backbone that stays as it is: its features are computed once for all folds.
def build_frozen(seed):
    return fe.build_model("all_minilm_l6_v2", labels=reviews.labels, freeze=True, seed=seed)


began = time.perf_counter()
head = fe.cross_evaluate(build_frozen, x, y, recipe={"epochs": 5})
print(f"{time.perf_counter() - began:.0f} s\n")

# Which recipe is better with so many rows? Same folds, same rows: the differences of the folds are compared.
print(fe.compare(tuned, head, names=("fine-tuned", "head alone")))

# Labels worth a second look, among all rows: each probability is of a model that never saw the row.
print(tuned.label_errors[["id", "label", "suggested", "p_suggested", "text"]].head(3).to_string())

# The five models are not thrown away: one Keras model averages them, on raw strings.
ensemble = tuned.ensemble()
print(ensemble.predict(["A warm, funny and honest film."]).round(3))
print(fe.evaluate(ensemble, *reviews.test, train=reviews.train)["accuracy"])
