"""Using a finished model: runtimes and prediction."""
