"""CRMs: one package each, the same file names in every one. They know daemon.model and nothing else of the daemon."""
