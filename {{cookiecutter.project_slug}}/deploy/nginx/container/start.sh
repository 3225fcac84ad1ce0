#!/bin/sh
# Starts nginx: over HTTP until there is a certificate, over HTTPS from then on, and again with
# each renewed certificate.
set -eu

certificate=/etc/letsencrypt/live/$DOMAIN_NAME/fullchain.pem

case $DOMAIN_NAME in
  '' | *[!a-z0-9.-]*)
    echo "DOMAIN_NAME is \"$DOMAIN_NAME\". Set it to a host name in lower case, such as example.com." >&2
    exit 1
    ;;
esac

state() { cksum "$certificate" 2>/dev/null || true; }

# With LISTEN=shared it is in the machine's own network, shares the ports with one that ends, and
# finds the key in the certificate's file. The certificate authority may ask any of the machines,
# and certbot answers on one of them.
shared=
if [ "${LISTEN:-}" = shared ]; then
  shared='s/listen 8080/listen 80/; s/listen 8443/listen 443/
    s/default_server;/default_server reuseport;/; s/privkey/fullchain/
    s|include .*/acme.conf;|include /tmp/acme.conf;|'
  certbot=$(printf '%s\n' "$REDIS_MACHINES" | sed 's/,/ /g; s/[0-9.][0-9.]*/server &:8402 max_fails=0;/g')
  echo "upstream certbot { $certbot }" >/tmp/certbot.conf
  cat >/tmp/acme.conf <<'CONF'
location ^~ /.well-known/acme-challenge/ {
    proxy_pass http://certbot;
    proxy_set_header Host $host;
    proxy_connect_timeout 2s;
    proxy_next_upstream error timeout http_404 http_502;
}
CONF
fi

write_site() {
  sed "s/DOMAIN_NAME/$DOMAIN_NAME/g; $shared" "/etc/nginx/site-$1.conf" >/tmp/site.conf
  if [ -n "$shared" ]; then cat /tmp/certbot.conf >>/tmp/site.conf; fi
}

watch_certificate() {
  while sleep 10; do
    now=$(state)
    if [ "$now" = "$known" ]; then continue; fi
    write_site https
    # A certificate that is half written or bad changes nothing; it is looked at again.
    if nginx -t -q; then
      nginx -s reload
      known=$now
      echo "The certificate is new; nginx uses it." >&2
    fi
  done
}

known=$(state)
write_site https
if [ -z "$known" ] || ! nginx -t -q; then
  known=
  write_site http
  echo "There is no good certificate for $DOMAIN_NAME yet; nginx speaks HTTP." >&2
fi
# Shared, it never changes: there is another container for a new one.
if [ -z "$shared" ]; then watch_certificate & fi
exec nginx -g 'daemon off;'
