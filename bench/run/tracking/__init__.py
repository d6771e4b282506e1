"""Cells of a run as runs of TensorBoard and other trackers, which follow the logs that the trainings write."""
