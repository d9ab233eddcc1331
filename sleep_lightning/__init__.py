"""Sleep-time consolidation for language models (arXiv:2605.26099): train it, measure it, sweep it."""

__version__ = "0.1.0"
