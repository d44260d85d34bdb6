"""From nothing to an evaluated model in seconds: synthetic rows, a small "pre-trained" backbone, no download.

Run it: python examples/01_synthetic.py
"""

import keras
import numpy as np

import finetune_eval as fe

COLUMNS = 10


def make_rows(rows, *, seed, flip=0.1):
    """Ten columns of noise; the label is the sign of a sum of some of them, and one label in ten is wrong."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(rows, COLUMNS)).astype("float32")
    y = (x[:, :4].sum(axis=1) + 0.5 * x[:, 4] * x[:, 5] > 0).astype(int)
    wrong = random.random(rows) < flip
    return x, np.where(wrong, 1 - y, y)


def pretrained_backbone():
    """A small network trained on another task of the same columns: what it learned about them is reused."""
    keras.utils.set_random_seed(0)
    backbone = keras.Sequential(
        [keras.Input((COLUMNS,)), keras.layers.Dense(32, "relu"), keras.layers.Dense(16, "relu")],
        name="backbone",
    )
    general = keras.Sequential([backbone, keras.layers.Dense(1)])
    general.compile("adam", "mse")
    x, _ = make_rows(2000, seed=100)
    general.fit(x, x[:, :5].sum(axis=1), epochs=3, verbose=0)
    return backbone


# 1. Load a pre-trained model: any keras.Model that maps rows to features.
model = fe.build_model(pretrained_backbone(), labels=["no", "yes"], seed=0)

# 2. Prepare task data. 1,000 x 10 rows to learn from; 200 of them choose the epoch.
x, y = make_rows(1000, seed=1)
rows = fe.split(x, y, labels=["no", "yes"], validation=200, test=0, seed=0)

# 3. Fine-tune with a small learning rate: a table, a line of observation an epoch, a chart.
run = fe.fine_tune(
    model, *rows.train, validation_data=rows.validation, epochs=5, learning_rate=3e-3, verbose=False
)
print(run.trace)

# 4. An evaluation set that the model never saw: 200 x 10 rows.
x_test, y_test = make_rows(200, seed=2)

# 5. Evaluate. It is plain Keras, and every number has an interval.
loss, accuracy = model.evaluate(x_test, y_test, verbose=0)
print(f"\nmodel.evaluate: loss {loss:.3f}, accuracy {accuracy:.3f}\n")
print(fe.evaluate(model, x_test, y_test))
