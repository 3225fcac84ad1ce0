"""What ``celery -A {{ cookiecutter.project_slug }}.celery_app`` loads.

Not needed for ``flask celery …``, which finds the application by itself.
"""

from flask.cli import load_dotenv
from flask_background import FlaskCelery

from . import create_app

# The `flask` command reads .env by itself; `celery` does not.
load_dotenv()

celery: FlaskCelery = create_app().extensions["celery"]
