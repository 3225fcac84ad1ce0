#!/bin/sh
# The health check of web. The first time that it is good, nginx is led to this container: until
# then the one before it answers.
set -eu

python3 -ISc "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/healthz', timeout=4)"
if [ ! -e /tmp/serves ]; then
  own=$(hostname)
  cd /run/{{ cookiecutter.project_slug }}
  ln -sf "$own.sock" "$own.link"
  mv -fT "$own.link" web.sock
  touch /tmp/serves
fi
