"""``flask deploy swarm …``: the application on several machines, any one of which may be lost.

``deploy/swarm/`` holds what runs there; docs/swarm.md tells the whole way.
"""
