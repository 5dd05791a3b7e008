"""What every benchmark shares; `run.py` is the command that uses it."""
