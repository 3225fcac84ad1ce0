#!/bin/sh
# Keeps a backup every night at BACKUP_AT, until it is stopped (Compose).
set -eu
trap exit TERM
while true; do
  next=$(date -d "$BACKUP_AT" +%s) || {
    echo "BACKUP_AT is \"$BACKUP_AT\": give a time of the day, such as 03:00." >&2
    exit 2
  }
  left=$((next - $(date +%s)))
  sleep $((left > 0 ? left : left + 86400)) &
  wait $!
  sh /database.sh keep || echo "There is no backup of this night." >&2
done
