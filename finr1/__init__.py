"""finr1: distil, filter, fine-tune, reinforce and evaluate language models for finance."""

__version__ = "0.1.0"
