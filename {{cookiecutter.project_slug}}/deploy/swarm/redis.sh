#!/bin/sh
# Redis on this machine, or the sentinel that watches over it: redis.sh server|sentinel
# The sentinels keep on disk who is primary. A Redis asks them before it starts, so that one which
# comes back never takes itself for the primary that it was.
set -eu

name={{ cookiecutter.project_slug }}
password=$(cat /run/secrets/REDIS_PASSWORD)
export REDISCLI_AUTH="$password"
machines=$(echo "$REDIS_MACHINES" | tr , ' ')
most=$(($(echo "$machines" | wc -w) / 2 + 1))

own=
for address in $machines; do
  case " $(hostname -I) " in *" $address "*) own=$address ;; esac
done
if [ -z "$own" ]; then
  echo "None of the addresses $machines is one of this machine." >&2
  exit 1
fi

# What each sentinel says, the most frequent answer first: number and address
answers() {
  for address in $machines; do
    timeout 1 redis-cli -h "$address" -p 26379 --raw sentinel get-master-addr-by-name "$name" \
      2>/dev/null | grep -m 1 -E '^[0-9.]+$' || true
  done | sort | uniq -c | sort -rn | head -1
}

sentinel() {
  if [ ! -e /data/sentinel.conf ]; then
    # A new machine asks the others; where nobody answers all begin, with the first as primary.
    primary=$(answers | awk '{print $2}')
    cat >/data/new.conf <<SETTINGS
port 26379
bind $own 127.0.0.1
dir /data
requirepass $password
sentinel sentinel-pass $password
sentinel monitor $name ${primary:-${machines%% *}} 6379 $most
sentinel auth-pass $name $password
sentinel down-after-milliseconds $name 2000
sentinel failover-timeout $name 10000
SETTINGS
    mv /data/new.conf /data/sentinel.conf
  fi
  exec redis-server /data/sentinel.conf --sentinel
}

server() {
  primary=
  until [ -n "$primary" ]; do
    sleep 0.5
    primary=$(answers | awk -v most="$most" '$1 >= most {print $2}')
  done
  echo "The sentinels name $primary; this is $own." >&2
  replica=
  if [ "$primary" != "$own" ]; then replica="replicaof $primary 6379"; fi
  # By standard input, the password is in no list of processes. Full means that new tasks are
  # refused, loudly; any other policy would delete waiting ones.
  exec redis-server - <<SETTINGS
port 6379
bind $own 127.0.0.1
requirepass $password
masterauth $password
replica-announce-ip $own
$replica
dir /data
save ""
appendonly yes
auto-aof-rewrite-min-size 16mb
maxmemory 96mb
maxmemory-policy noeviction
repl-diskless-sync-delay 0
# A primary that is cut off from the others refuses writes, which would be lost.
min-replicas-to-write 1
min-replicas-max-lag 3
SETTINGS
}

"$1"
