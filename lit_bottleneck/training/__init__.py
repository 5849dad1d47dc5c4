"""Infrastructure of training: checkpoints, precision, distributed sums, compilation, weight averaging."""
