"""What an operator asks: health, metrics, logs, and whether the settings can work."""
