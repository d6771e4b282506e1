"""Plans, executes and keeps cells: their measurements, trainings and evaluations."""
