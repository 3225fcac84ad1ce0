"""The smoke suite: proves a running deployment by using it from outside, over HTTP alone.

``uv run flask smoke URL`` or ``uv run pytest smoke --base-url URL``; the same for every target.
"""
