"""``flask celery …``."""
