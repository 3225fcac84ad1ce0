"""Extension objects of the application; ``create_app`` connects them to it."""

from flask import current_app
from flask_background import FlaskCelery

from .web.operators import is_operator
from .web.rate_limits import RateLimiter

celery = FlaskCelery()
limiter = RateLimiter()

#: Decorate with this every view that puts a task in a queue: one count for each client. Operators
#: are not limited.
limit_enqueue = limiter.shared_limit(
    lambda: str(current_app.config["RATELIMIT_ENQUEUE"]), scope="enqueue", exempt_when=is_operator
)
