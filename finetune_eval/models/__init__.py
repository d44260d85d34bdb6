"""A pre-trained backbone becomes a Keras classifier that eats raw rows."""

import os

# TensorFlow reads this once, when it is first imported. oneDNN's products are its default on processors with
# AVX-512 only; with AVX2 alone they train a fifth faster (docs/performance.md). What the user has set stays.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
