"""The processes: one parent that starts, watches, replaces and stops the workers."""
