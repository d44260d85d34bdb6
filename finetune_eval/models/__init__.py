"""A pre-trained backbone becomes a Keras classifier that eats raw rows."""

import gc
import os
import sys

from finetune_eval._cores import cores, seen

# TensorFlow reads these once, when it is first imported: after that, setting them would only mislead who
# looks. What the user has set stays.
if "tensorflow" not in sys.modules:
    # oneDNN is what TensorFlow multiplies with on processors with AVX-512; with AVX2 alone it trains a fifth
    # faster (docs/performance.md).
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    # On two cores, one for each half of a batch (halves.py; docs/performance.md; not measured on more cores).
    # A GPU's driver shows as a device: with it batches are not halved.
    if cores() == 2 and not any(os.path.exists(device) for device in ("/dev/nvidiactl", "/dev/kfd")):
        os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
    # TensorFlow knows the affinity of the process, not the quota of its container: it would start as many
    # threads as the machine has cores.
    if cores() < seen():
        os.environ.setdefault("TF_NUM_INTRAOP_THREADS", str(cores()))
        os.environ.setdefault("TF_NUM_INTEROP_THREADS", str(cores()))
    # The import makes 900,000 objects that live as long as the process. Garbage is not looked for among them:
    # not meanwhile, which takes a quarter of the time, nor later, nor at exit, which takes a second.
    _collects = gc.isenabled()
    gc.disable()
    try:
        import keras_hub  # noqa: F401
    finally:
        if _collects:
            gc.enable()
    gc.freeze()
