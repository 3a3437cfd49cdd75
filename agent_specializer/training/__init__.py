"""Training the generator: from example files to a checkpoint."""
