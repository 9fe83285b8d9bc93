"""The shell around the steps: watch, decide, carry out."""
