"""Where runs are recorded: MLflow and other loggers, and figures."""

import os

# before MLflow is imported; a user may set others
for _name, _value in {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",  # of a server that does not answer; by default 120, and 8 times
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
}.items():
    os.environ.setdefault(_name, _value)
