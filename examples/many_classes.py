"""A thousand classes: which product does an order mean? Half a minute on two cores.

Run it: python examples/many_classes.py
"""

import itertools

import finetune_eval as fe

COLOURS = "red blue green black white yellow grey brown pink purple".split()
MATERIALS = "wooden plastic steel glass leather cotton paper stone rubber wool".split()
THINGS = "chair table lamp box bag cup clock mirror shelf cushion".split()
PHRASES = [
    "I would like the {} {} {}.", "Please send me a {} {} {}", "One {} {} {}, as a gift",
    "Is the {} {} {} still there?", "{} {} {}, quickly please",
]  # fmt: skip
LABELS = [" ".join(words) for words in itertools.product(COLOURS, MATERIALS, THINGS)]  # 1,000 products


def orders(phrases):
    """Return each product in each of the phrases, and its name."""
    rows = [(phrase.format(*label.split()), label) for phrase in phrases for label in LABELS]
    return [text for text, _ in rows], [label for _, label in rows]


train, validation, test = orders(PHRASES[:3]), orders(PHRASES[3:4]), orders(PHRASES[4:])

# "head" computes the backbone once, and trains a thousand outputs on what it gave.
model = fe.build_model("all_minilm_l6_v2", labels=LABELS)
fe.fine_tune(model, *train, validation_data=validation, strategy="head", epochs=6, batch_size=32)

result = fe.evaluate(model, *test, baselines=False)
print(f"{result['accuracy']} of {result.n:,} orders are understood")
print(model.labels[model.decide(model.predict(["a grey stone clock for my mother"]))[0]])

# A class that the model does not have is an error that names it.
try:
    fe.evaluate(model, ["a golden steel bag"], ["golden steel bag"])
except ValueError as error:
    print(str(error)[:80])
