#!/bin/sh
# Runs in the container certbot: gets the certificate, and renews it when a third of its time is
# left. nginx sees the new file and reads it. After a failure it tries again in an hour, because
# Let's Encrypt allows five of them per hour.
set -eu
trap 'exit 0' TERM INT

while :; do
  pause=12h
  certbot certonly --non-interactive --agree-tos --email "$ACME_EMAIL" --server "$ACME_SERVER" \
    --webroot --webroot-path "/var/lib/letsencrypt/{{ cookiecutter.project_slug }}" \
    --cert-name "$DOMAIN_NAME" --domain "$DOMAIN_NAME" --keep-until-expiring \
    --config-dir /etc/letsencrypt --work-dir /tmp/work --logs-dir /tmp/logs || pause=1h
  touch /tmp/round
  sleep "$pause" &
  wait $!
done
