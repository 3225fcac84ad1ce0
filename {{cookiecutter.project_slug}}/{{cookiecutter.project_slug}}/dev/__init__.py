"""`flask dev`: the whole application on one machine, for development only.

- `command.py` is the command itself.
- `processes.py` runs several programs side by side; `child.py` and `guard.py` run one of them;
  `output.py` prints what they say; `reload.py` watches the code.
- `redis_server.py` is the embedded Redis; `fake_redis.py` stands in for it on Windows.

Production imports only `redis_server.running_url`, and only in the development configuration.
"""
