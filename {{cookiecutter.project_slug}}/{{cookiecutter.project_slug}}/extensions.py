"""Extension objects of the application; ``create_app`` connects them to it."""

{% if cookiecutter.database != "none" %}
from pathlib import Path

{% endif %}
from flask import current_app
from flask_background import FlaskCelery
{% if cookiecutter.database != "none" %}
from flask_background.database import Database
from flask_migrate import Migrate  # type: ignore[import-untyped]
{% endif %}

{% if cookiecutter.database != "none" %}
from .models import Base
{% endif %}
from .web.operators import is_operator
from .web.rate_limits import RateLimiter

celery = FlaskCelery()
limiter = RateLimiter()
{% if cookiecutter.database != "none" %}
db = Database(Base)
migrate = Migrate(db=db, directory=str(Path(__file__).with_name("migrations")))
{% endif %}

#: Decorate with this every view that puts a task in a queue: one count for each client. Operators
#: are not limited.
limit_enqueue = limiter.shared_limit(
    lambda: str(current_app.config["RATELIMIT_ENQUEUE"]), scope="enqueue", exempt_when=is_operator
)
