"""Training: state, step, optimizer, checkpoints, writer and the loop."""
