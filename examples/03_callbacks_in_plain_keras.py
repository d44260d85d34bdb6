"""Only the callbacks, in a `model.fit` of a Keras model that this library never made.

Run it: python examples/03_callbacks_in_plain_keras.py
"""

import keras
import numpy as np

import finetune_eval as fe

keras.utils.set_random_seed(0)
random = np.random.default_rng(0)
x = random.normal(size=(600, 10)).astype("float32")
y = np.digitize(x[:, 0] + x[:, 1], [-1.0, 1.0])  # three classes, integer labels

model = keras.Sequential([keras.Input((10,)), keras.layers.Dense(16, "relu"), keras.layers.Dense(3)])
model.compile(
    keras.optimizers.Adam(0.01),
    loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    metrics=["accuracy"],
)

# `ClassificationMetrics` counts precision, recall and F1 in the pass that computes the loss, so that
# `EarlyStopping` can watch `val_f1`. `EpochTrace` writes the table, a row as each epoch ends.
model.fit(
    x[:400],
    y[:400],
    validation_data=(x[400:], y[400:]),
    epochs=8,
    verbose=0,
    callbacks=[
        fe.ClassificationMetrics(),
        fe.EpochTrace(rows=400, val_rows=200, show=print),
        keras.callbacks.EarlyStopping("val_f1", mode="max", patience=3, restore_best_weights=True),
    ],
)
