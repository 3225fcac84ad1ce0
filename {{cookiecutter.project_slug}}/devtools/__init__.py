"""``flask dev``, ``flask deploy``, ``flask smoke``: tools for your machine, never for production."""
