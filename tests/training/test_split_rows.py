"""The rows of a split go into any Keras model as they are, and a model reads their classes by name."""

import keras
import numpy as np

import finetune_eval as fe


def test_keras_takes_the_rows_of_a_split(tmp_path):
    x = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    rows = fe.split(x, ["good" if value > 0 else "bad" for value in x[:, 0]], labels=["good", "bad"])
    model = keras.Sequential([keras.layers.Dense(2, activation="softmax")])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(*rows.train, validation_data=tuple(rows.validation), class_weight={0: 1.0, 1: 2.0}, verbose=0)
    accuracy = model.evaluate(*rows.test, verbose=0, return_dict=True)["accuracy"]
    answers = np.asarray(model.predict(rows.test.x, verbose=0)).argmax(axis=1)
    assert accuracy == np.float32(np.mean(answers == np.asarray(rows.test.y)))
    assert keras.ops.convert_to_tensor(rows.test.y).shape == (12,)
    assert keras.utils.to_categorical(rows.test.y, 2).argmax(axis=1).tolist() == rows.test.y.tolist()
