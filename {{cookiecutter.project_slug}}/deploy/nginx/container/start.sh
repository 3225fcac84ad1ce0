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
# finds the key in the certificate's file.
shared=
if [ "${LISTEN:-}" = shared ]; then
  shared='s/listen 8080/listen 80/; s/listen 8443/listen 443/
    s/default_server;/default_server reuseport;/; s/privkey/fullchain/'
fi

write_site() {
  sed "s/DOMAIN_NAME/$DOMAIN_NAME/g; $shared" "/etc/nginx/site-$1.conf" >/tmp/site.conf
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
