"""Networks learn: recipes, losses, the training loop, checkpoints, logs, cards of weights (notebook 02)."""
