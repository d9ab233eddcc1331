"""Benchmarks of ``python -m sleep_lightning bench``: ratios to named peers, measured in one run."""
