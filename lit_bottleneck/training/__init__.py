"""What a trainer needs: checkpoints, precision, processes, compilation, averages."""
