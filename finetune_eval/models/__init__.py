"""A pre-trained backbone becomes a Keras classifier that eats raw rows."""

import os
import sys

# oneDNN is what TensorFlow multiplies with on processors with AVX-512; with AVX2 alone it trains a fifth
# faster (docs/performance.md). TensorFlow reads this once, when it is first imported: after that, setting it
# would only mislead who looks. What the user has set stays.
if "tensorflow" not in sys.modules:
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
