"""`flask dev`: the whole application on one machine, for development only.

- `command.py` is the command itself; `ports.py` and `announce.py` say what it needs and has.
- `processes.py` runs several programs side by side; `child.py` and `guard.py` run one of them;
  `output.py` prints what they say; `reload.py` watches the code.
- `redis_server.py` is the embedded Redis; `fake_redis.py` stands in for it on Windows.

In production the command is registered and nothing more happens.
"""
