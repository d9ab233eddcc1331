"""A user's package: what sleep_lightning is given by class_path. Tests copy it; it is not importable from here."""
