"""What a training run keeps on the disk: checkpoints, the log, its facts."""
