"""What ``celery -A {{ cookiecutter.project_slug }}.celery_app`` loads.

It is the application that ``flask`` would load. ``flask celery …`` does not need this: it finds
the application by itself.
"""

import os

from flask.cli import ScriptInfo, load_dotenv
from flask_background import FlaskCelery

# The `flask` command reads .env and .flaskenv by itself; `celery` does not.
load_dotenv()

_found = ScriptInfo(os.environ.get("FLASK_APP") or "{{ cookiecutter.project_slug }}").load_app()
celery: FlaskCelery = _found.extensions["celery"]
