"""Training, evaluation and report of networks for images."""
