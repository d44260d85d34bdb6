"""Several labels a row: what does a customer write about? Half a minute on two cores.

Run it: python examples/multilabel.py
"""

import random

import numpy as np
import pandas as pd

import finetune_eval as fe

# Made-up reviews: each speaks of none, one or more of three things.
SENTENCES = {
    "delivery": [
        "It came a week late.", "The parcel was at my door the next day.", "The courier lost it twice.",
        "Shipping took for ever.", "It arrived on a Sunday, well packed.", "I am still waiting for it.",
        "They sent it to the wrong address.", "The driver left it in the rain.", "Delivered within a day.",
        "The tracking number never worked.", "The box was delivered to a neighbour.", "Shipped at once.",
        "The postman had to come three times.", "My order arrived late.",
    ],
    "price": [
        "Far too much money for that.", "A bargain.", "I paid half of it elsewhere.", "Worth every cent.",
        "They charged me twice.", "The discount never reached my bill.", "Very cheap, in a good sense.",
        "Nobody should pay 90 euros for this.", "It costs less than a lunch.", "Overpriced.",
        "I would have paid twice the price.", "The cost is a joke.", "Too expensive for me.", "Good value.",
    ],
    "quality": [
        "The seams came apart.", "It is solid and well made.", "After two days it broke.",
        "The finish is flawless.", "Cheap plastic that bends.", "It will outlive me.", "The handle fell off.",
        "The material feels like silk.", "A scratch on the first day.", "Nothing rattles, nothing creaks.",
        "The zip broke at once.", "Strong, thick cotton.", "It fell to pieces.", "Beautifully made.",
    ],
}  # fmt: skip
OTHER = [
    "I bought it for my sister.", "My second one.", "I use it in the garden.", "It is blue.",
    "We have two cats.", "It was a gift.", "I looked for it for a long time.", "It is for the kitchen.",
]  # fmt: skip
LABELS = list(SENTENCES)


def reviews(count, seed, sentences):
    """Return texts, and a column of zeros and ones for each label; `sentences`: which of each list to use."""
    draw = random.Random(seed)
    texts, rows = [], []
    for _ in range(count):
        there = {label: draw.random() < 0.4 for label in LABELS}
        parts = [draw.choice(SENTENCES[label][sentences]) for label in LABELS if there[label]] + [
            draw.choice(OTHER)
        ]
        draw.shuffle(parts)
        texts.append(" ".join(parts))
        rows.append(there)
    return texts, pd.DataFrame(rows).astype(int)


# The sentences that judge are others than those that were learned from.
x, y = reviews(300, 0, slice(0, 8))
val_x, val_y = reviews(80, 1, slice(8, 10))
test_x, test_y = reviews(200, 2, slice(10, 14))

# Each label has a sigmoid of its own, and its probability says nothing of the others.
model = fe.build_model("all_minilm_l6_v2", labels=LABELS, task="multilabel")
fe.fine_tune(model, x, y, validation_data=(val_x, val_y), epochs=4)

# A row is right where all of its labels are; each label has its own precision, recall and F1.
print(fe.evaluate(model, test_x, test_y, metrics=["hamming", "samples_f1"]))

# From the threshold on (0.5) a label is given.
probabilities = model.predict(["It broke at once, and they still want 90 euros for it."])
given = model.decide(probabilities)[0]
print([label for label, there in zip(LABELS, given, strict=True) if there], np.round(probabilities[0], 3))
