"""Turn the likelihoods of labels into scores, in training and in serving."""
