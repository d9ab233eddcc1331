"""Searches for the frontier of accuracy over cost: how much sleep is worth."""
