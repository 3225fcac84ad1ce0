#!/bin/sh
# Gets the certificate, and the next one when 30 days are left. A timer runs it on each machine, and the
# one that leads the Swarm does it. It keeps nothing that must not be lost: it looks at what nginx
# shows, so the machine that leads next goes on.
set -eu

name={{ cookiecutter.project_slug }}
# DOMAIN, EMAIL, ACME_SERVER
. "/etc/$name/certificate"

docker node inspect self --pretty 2>/dev/null | grep -q 'Leader:.*Yes' || exit 0
docker service inspect "${name}_nginx" >/dev/null 2>&1 || exit 0

shown=$(openssl s_client -connect 127.0.0.1:443 -servername "$DOMAIN" </dev/null 2>/dev/null || true)
is_good() {
  echo "$shown" | openssl x509 -noout -checkend 2592000 &&
    echo "$shown" | openssl x509 -noout -checkhost "$DOMAIN" | grep -q 'does match'
}
if is_good >/dev/null 2>&1; then exit 0; fi

# The authority asks any of the machines, and nginx there asks all for who answers at this port.
folder=/var/lib/$name/certbot
certbot certonly --quiet --non-interactive --agree-tos --email "$EMAIL" --server "$ACME_SERVER" \
  --standalone --http-01-port 8402 --cert-name "$name" --domain "$DOMAIN" --force-renewal \
  --config-dir "$folder" --work-dir "$folder/work" --logs-dir "$folder/logs"

both() { cat "$folder/live/$name/fullchain.pem" "$folder/live/$name/privkey.pem"; }
digest=$(both | sha256sum | cut -c -64)
secret=${name}_certificate_$(date +%s)
both | docker secret create --label "domain=$DOMAIN" --label "digest=$digest" "$secret" - >/dev/null
used='{% raw %}{{range .Spec.TaskTemplate.ContainerSpec.Secrets}}{{.SecretName}}{{end}}{% endraw %}'
# On all machines at once: each new nginx starts beside the old one.
docker service update --quiet --detach --no-resolve-image "${name}_nginx" \
  --update-parallelism 0 --update-monitor 1s \
  --secret-rm "$(docker service inspect -f "$used" "${name}_nginx")" \
  --secret-add "source=$secret,target=/etc/letsencrypt/live/$DOMAIN/fullchain.pem" >/dev/null
echo "$DOMAIN has another certificate."
