"""Text and columns: is an order sent back? The review tells, and so do price and country.

Run it: python examples/columns.py (a minute on two cores)
"""

import numpy as np

import finetune_eval as fe

# Made-up reviews: two sentences each, of people who are content or not.
CONTENT = [
    "It fits perfectly.", "The colour is lovely.", "Exactly as described.", "My friends all asked for it.",
    "I wear it every day.", "The fabric is soft.", "It arrived early.", "A gift that was well received.",
    "Better than I hoped.", "The seams are neat.", "I would buy it again.", "It looks expensive.",
]  # fmt: skip
NOT_CONTENT = [
    "It is far too small.", "The colour is wrong.", "Nothing like the photo.", "It smells of chemicals.",
    "A button fell off.", "The fabric scratches.", "It came two weeks late.", "The zip does not close.",
    "I expected more.", "A seam was open.", "I regret it.", "It looks cheap.",
]  # fmt: skip


def orders(rows, seed):
    """Return reviews with price and country, and whether the order came back; some prices are not known."""
    random = np.random.default_rng(seed)
    content = random.integers(0, 2, rows)
    texts = [" ".join(random.choice(CONTENT if c else NOT_CONTENT, 2, replace=False)) for c in content]
    price, country = random.lognormal(3.5, 0.5, rows), random.choice(["DE", "FR", "SE"], rows)
    # Dear things come back more often, and from Germany more than from elsewhere.
    logit = 2 - 4 * content + 3 * (np.log(price) - 3.5) / 0.5 + 2 * (country == "DE") - 0.7
    back = np.where(logit + random.logistic(size=rows) > 0, "returned", "kept")
    price[random.random(rows) < 0.05] = np.nan
    return {"text": texts, "price": price, "country": country}, back


train, validation, test = orders(500, seed=0), orders(150, seed=1), orders(500, seed=2)

# A row is a text, a number and a category; columns are told by their names.
model = fe.build_model(
    "all_minilm_l6_v2", labels=["kept", "returned"], columns={"price": "number", "country": "category"}
)
fe.fine_tune(model, *train, validation_data=validation)

# The same rows without the columns: what the review alone tells.
alone = fe.build_model("all_minilm_l6_v2", labels=["kept", "returned"])
fe.fine_tune(
    alone, train[0]["text"], train[1], validation_data=(validation[0]["text"], validation[1]), verbose=False
)

with_columns = fe.evaluate(model, *test)
print(with_columns)
print(
    fe.compare(
        with_columns, fe.evaluate(alone, test[0]["text"], test[1]), names=["with columns", "text alone"]
    )
)

# What was learnt from the training rows: the values of the country, the mean and the spread of the price.
print(model.columns.learnt)

# One row is a list of one dictionary; a value that is not known is None.
print(model.predict([{"text": "I regret it. It looks cheap.", "price": 90, "country": None}]))
