"""Pictures: data sets with ground truth, the sample made on the spot, pairs of views to learn from (01)."""
