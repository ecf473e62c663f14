"""What stands beside the trainer: callbacks, metrics, resume, the folder of a run."""
