"""A pre-trained backbone becomes a Keras classifier that eats raw rows."""
