"""Meta-learning: the slow weights that all streams share. Pure, as core is."""
