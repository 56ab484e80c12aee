"""Learning: from prepared data and a config to a run folder with an artifact."""
