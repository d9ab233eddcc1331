"""Where runs are recorded: MLflow and other loggers, and figures."""

import os

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # before MLflow is imported; a user may set it to false
