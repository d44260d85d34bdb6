"""Pairs of texts: does a sentence of a review speak of what the question asks? Half a minute on two cores.

Run it: python examples/pairs.py
"""

import random

import finetune_eval as fe

# Made-up sentences of reviews, and questions about the same three things.
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
QUESTIONS = {
    "delivery": ["How was the delivery?", "Was it shipped on time?", "When did it arrive?"],
    "price": ["What about the price?", "Was it worth the money?", "Is it expensive?"],
    "quality": ["How good is the quality?", "Is it well made?", "Does it last?"],
}


def pairs(sentences):
    """Return each sentence with each question, the fitting ones twice, and whether they fit."""
    rows, labels = [], []
    for topic, all_of_it in SENTENCES.items():
        for sentence in all_of_it[sentences]:
            for asked, questions in QUESTIONS.items():
                for question in questions if asked == topic else random.sample(questions, 2):
                    rows.append((question, sentence))
                    labels.append("fits" if asked == topic else "other")
    return rows, labels


random.seed(0)
x, y = pairs(slice(0, 8))
validation, test = pairs(slice(8, 10)), pairs(slice(10, 14))  # of other sentences

# Both texts are read at once: [CLS] question [SEP] sentence [SEP].
model = fe.build_model("all_minilm_l6_v2", labels=["other", "fits"], pairs=True)
fe.fine_tune(model, x, y, validation_data=validation, epochs=4)

# TF-IDF reads a pair as one text. Pairs with the same sentence tend to be right or wrong together: they are a
# group.
groups = [sentence for _, sentence in test[0]]
print(fe.evaluate(model, *test, train=(x, y), groups=groups))

# A row is a pair; one row is a list of one pair.
print(model.predict([("How was the delivery?", "The van never came.")]))
