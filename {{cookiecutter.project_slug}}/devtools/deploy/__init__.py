"""``flask deploy …``: the application on a server of its own. Nothing of it runs in production.

``deploy/vps/`` holds what is done on the server; here are the commands that start it.
"""
