"""The evidence: what the shipped reproduction sweeps found, tested and written down."""
