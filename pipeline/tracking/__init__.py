"""The MLflow mirror, the model flavour and the registry: the only home of mlflow."""
