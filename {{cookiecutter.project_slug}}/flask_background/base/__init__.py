"""What needs nothing else of the engine: errors, names of keys, URLs, settings, records."""
