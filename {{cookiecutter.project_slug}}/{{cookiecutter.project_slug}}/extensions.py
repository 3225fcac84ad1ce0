"""Extension objects of the application; ``create_app`` connects them to it."""

from flask import current_app
from flask_background import FlaskCelery

from .web.rate_limits import RateLimiter

celery = FlaskCelery()
limiter = RateLimiter()

#: Decorate with this every view that puts a task in a queue: one count for each client.
limit_enqueue = limiter.shared_limit(
    lambda: str(current_app.config["RATELIMIT_ENQUEUE"]), scope="enqueue"
)
