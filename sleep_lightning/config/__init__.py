"""A whole experiment: five sections of dataclasses, merged defaults <- YAML <- ``key=value`` arguments.

Every mistake raises a ValueError of one sentence that names the key, the value and the fix, before any compute.
"""

from sleep_lightning.config.experiment import Experiment
from sleep_lightning.config.load import SECTIONS, WrongValue, key_types, load_experiment, read_yaml, type_name
from sleep_lightning.config.tracking import TrackingConfig, anchored_uri, sqlite_file
from sleep_lightning.config.training import Stage, TrainingConfig
from sleep_lightning.config.values import Override, texts_in

__all__ = [
    "SECTIONS",
    "Experiment",
    "Override",
    "Stage",
    "TrackingConfig",
    "TrainingConfig",
    "WrongValue",
    "anchored_uri",
    "key_types",
    "load_experiment",
    "read_yaml",
    "sqlite_file",
    "texts_in",
    "type_name",
]
