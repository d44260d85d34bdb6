"""Images: a disc, a square or a cross? Half a minute on two cores.

Run it: python examples/images.py
"""

import keras
import keras_hub
import numpy as np

import finetune_eval as fe

LABELS = ["disc", "square", "cross"]
SIZE = 32


def pictures(count, seed):
    """Return (count, 32, 32, 3) pictures with values in [0, 1], and the name of the shape in each."""
    random = np.random.default_rng(seed)
    down, across = np.mgrid[:SIZE, :SIZE]
    x, y = np.empty((count, SIZE, SIZE, 3), dtype="float32"), []
    for row in range(count):
        label = LABELS[row % len(LABELS)]
        size = random.uniform(5, 10)
        above, left = np.abs(down - random.uniform(10, 22)), np.abs(across - random.uniform(10, 22))
        inside = {
            "disc": np.hypot(above, left) < size,
            "square": np.maximum(above, left) < 0.886 * size,  # as large as the disc
            "cross": (np.minimum(above, left) < size / 3) & (np.maximum(above, left) < size),
        }[label]
        x[row] = np.where(inside[..., None], random.uniform(0.3, 1.0, 3), random.uniform(0.0, 0.7, 3))
        x[row] += random.normal(0, 0.1, x[row].shape)
        y.append(label)
    return x, y


train, validation, test = pictures(900, 0), pictures(150, 1), pictures(300, 2)

# Any KerasHub backbone of images will do, such as `Backbone.from_preset("resnet_18_imagenet")`.
# This small one has random weights. Its maps of features are averaged, and a head is put on them.
keras.utils.set_random_seed(0)
backbone = keras_hub.models.ResNetBackbone(
    input_conv_filters=[64], input_conv_kernel_sizes=[3], stackwise_num_filters=[64, 64],
    stackwise_num_blocks=[1, 1], stackwise_num_strides=[1, 2], block_type="basic_block",
    image_shape=(SIZE, SIZE, 3),
)  # fmt: skip
model = fe.build_model(backbone, labels=LABELS)
fe.fine_tune(model, *train, validation_data=validation, epochs=15, learning_rate=3e-3)

# The pictures of the test are looked for among those of the training, pixel by pixel.
print(fe.evaluate(model, *test, train=train))
print([LABELS[place] for place in model.decide(model.predict(test[0][:3]))], "is the answer to", test[1][:3])
