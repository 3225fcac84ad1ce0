"""The worker: how it takes messages, runs requests, tells that it lives, and stops."""
