"""What ``python -m sleep_lightning bench`` measures: ratios against named peers, in one run."""
