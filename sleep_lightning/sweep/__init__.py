"""Searches that answer how much sleep is worth its cost."""
