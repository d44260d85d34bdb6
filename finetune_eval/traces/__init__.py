"""Records of what happened: the epochs of a training, the layers of one prediction."""
