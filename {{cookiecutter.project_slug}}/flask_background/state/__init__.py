"""What Redis holds about tasks, workers and the schedule."""
