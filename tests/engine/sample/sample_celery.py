"""What `celery -A sample_celery` loads, as Flask's documentation shows it."""

from sample_app import create_app

celery = create_app().extensions["celery"]
