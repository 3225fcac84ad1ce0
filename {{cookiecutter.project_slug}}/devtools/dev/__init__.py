"""`flask dev`: the whole application on one machine, for development only.

- `command.py` is the command itself; `stack.py` says what runs.
- `processes.py` runs several programs side by side; `screen.py` prints what they say; `reload.py`
  watches the code.
- `redis_server.py` is the embedded Redis, `redis_address.py` tells where it is; `fake_redis.py`
  stands in for it on Windows.
"""
