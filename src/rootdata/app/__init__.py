"""The glue to Hydra: `train.py` and the commands that compose its configuration."""
