"""TensorFlow and its text operations, None where they are not installed: JAX and torch do without."""

from typing import Any

import keras

NEEDS = "{} needs TensorFlow, which is not installed: `pip install tensorflow tensorflow-text`, or {}."


def _installed() -> tuple[Any, Any]:
    try:
        import tensorflow
        import tensorflow_text
    except ImportError:
        if keras.backend.backend() == "tensorflow":
            raise
        return None, None  # one without the other would be of no use
    return tensorflow, tensorflow_text


tf, tf_text = _installed()
