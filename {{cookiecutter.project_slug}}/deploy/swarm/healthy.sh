#!/bin/sh
# The health check of web. The first time that it is good, nginx is led to this container: until
# then the one before it answers. So it is when nginx was led to one that is gone: of two that
# started at the same time, the one that was healthy last may be stopped.
set -eu

python3 -ISc "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/healthz', timeout=4)"
cd /run/{{ cookiecutter.project_slug }}
if [ ! -e /tmp/serves ] || [ ! -e web.sock ]; then
  own=$(hostname)
  ln -sf "$own.sock" "$own.link"
  mv -fT "$own.link" web.sock
  touch /tmp/serves
fi
