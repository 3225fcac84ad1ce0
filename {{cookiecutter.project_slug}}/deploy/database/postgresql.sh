#!/bin/sh
# What is done with the database, on a server as on Compose. PGHOST, PGUSER, PGDATABASE and the like
# say where it is: https://www.postgresql.org/docs/17/libpq-envars.html
#   save    writes a backup to standard output
#   keep    saves into a file of the folder /var/lib/postgresql, where the newest 30 stay (Compose)
#   drill   takes a backup from standard input, restores it beside the database, says what it holds
#   load    the same, and lets it stay there
#   swap    puts what was loaded in the place of the database, which is kept beside it
set -eu
umask 077
export PGDATABASE="${PGDATABASE:-{{ cookiecutter.project_slug }}}"
export PGCONNECT_TIMEOUT=10

ask() { psql --no-psqlrc --quiet --tuples-only --no-align --set=ON_ERROR_STOP=1 "$@"; }

restore_into() { # DATABASE: from standard input; all of it, or an error
  dropdb --if-exists --force "$1" 2>/dev/null &&
    createdb --template=template0 "$1" &&
    pg_restore --no-owner --no-privileges --single-transaction --dbname="$1" && return
  dropdb --if-exists --force "$1" 2>/dev/null
  return 1
}

case ${1:-} in
  save) pg_dump --format=custom ;;
  keep)
    cd /var/lib/postgresql
    file=$(date +%F-%H%M%S).dump
    pg_dump --format=custom --file="$file.new"
    mv "$file.new" "$file"
    # Their names are dates, so that the order of names is the order of age
    set -- ????-??-??-??????.dump
    while [ $# -gt 30 ]; do
      rm -- "$1"
      shift
    done
    echo "Backup in $file; there are $#."
    ;;
  drill)
    beside=${PGDATABASE}_drill
    trap 'dropdb --if-exists --force "$beside" 2>/dev/null' EXIT
    restore_into "$beside"
    # Each table is counted by a query of its own.
    ask --dbname="$beside" <<'QUERY'
SELECT count(*) || ' tables, ' || coalesce(sum((xpath('//n/text()', counted))[1]::text::bigint), 0) || ' rows'
FROM (
  SELECT query_to_xml(format('SELECT count(*) AS n FROM %I.%I', schemaname, tablename), false, true, '') AS counted
  FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')
) AS tables;
QUERY
    ;;
  load) restore_into "${PGDATABASE}_loaded" ;;
  swap)
    kept=${PGDATABASE}_before_$(date +%Y%m%d_%H%M%S)
    ask --dbname=postgres --set=now="$PGDATABASE" --set=kept="$kept" --set=loaded="${PGDATABASE}_loaded" >/dev/null <<'QUERY'
SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname IN (:'now', :'loaded');
BEGIN;
ALTER DATABASE :"now" RENAME TO :"kept";
ALTER DATABASE :"loaded" RENAME TO :"now";
COMMIT;
QUERY
    echo "What was there before is the database $kept. If nobody needs it: dropdb $kept"
    ;;
  *)
    echo "Usage: $0 save|keep|drill|load|swap" >&2
    exit 2
    ;;
esac
