#!/bin/sh
# Starts the application's commands: each of the Swarm's secrets becomes the setting of its name.
set -eu

for file in /run/secrets/*; do
  export "${file##*/}=$(cat "$file")"
done
redis=redis+sentinel://:$REDIS_PASSWORD@$REDIS_MACHINES/{{ cookiecutter.project_slug }}/0
export REDIS_URL="$redis?sentinel_password=$REDIS_PASSWORD"
# Each container has a socket of its own, so that the new one can start beside the old.
BIND="unix:/run/{{ cookiecutter.project_slug }}/$(hostname).sock,0.0.0.0:8000"
export BIND
{% if cookiecutter.database == "postgresql" %}
# The first container of a release migrates the database; the others wait for its lock, and find nothing
# to do. If it fails the container ends, and the Swarm goes back to the version before.
flask --app {{ cookiecutter.project_slug }} db upgrade
{% endif %}
exec "$@"
