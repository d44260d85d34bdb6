"""A pre-trained backbone becomes a Keras classifier that eats raw rows."""

import os
import sys

# oneDNN's products are TensorFlow's default on processors with AVX-512 only; with AVX2 alone they train a fifth
# faster (docs/performance.md). TensorFlow reads this once, when it is first imported: after that, setting it
# would only mislead who looks. What the user has set stays.
if "tensorflow" not in sys.modules:
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
