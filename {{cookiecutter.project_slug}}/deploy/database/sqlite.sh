#!/bin/sh
# What is done with the database, on a server as on Compose.
#   save    writes a backup to standard output; the application goes on meanwhile
#   keep    saves into a file of the folder backups beside the database, where the newest 30 stay (Compose)
#   drill   takes a backup from standard input, tries it, says what it holds
#   load    the same, and puts it beside the database
#   swap    puts what was loaded in the place of the database, which is kept beside it
set -eu
umask 077
database=${DATABASE_FILE:-/var/lib/{{ cookiecutter.project_slug }}/{{ cookiecutter.project_slug }}.sqlite}
loaded=$database.loaded

ask() { sqlite3 -batch -noheader -cmd '.timeout 10000' "$@"; }

copy() { # FILE: what the database holds at this moment, by SQLite's own backup
  if [ ! -e "$database" ]; then
    echo "There is no $database." >&2
    return 1
  fi
  ask "$database" ".backup '$1'"
}

try() { # FILE: it is whole, and holds so much
  found=$(ask -readonly "file:$1?immutable=1" 'PRAGMA integrity_check' 2>&1) || true
  if [ "$found" != ok ]; then
    echo "It is no whole database: $(echo "$found" | head -n 1)" >&2
    return 1
  fi
  tables="FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
  counts=$(ask -readonly "file:$1?immutable=1" \
    "SELECT group_concat('SELECT count(*) AS n FROM \"' || name || '\"', ' UNION ALL ') $tables")
  ask -readonly "file:$1?immutable=1" \
    "SELECT (SELECT count(*) $tables) || ' tables, ' || coalesce(sum(n), 0) || ' rows' FROM (${counts:-SELECT 0 AS n})"
}

case ${1:-} in
  save)
    trap 'rm -f "$database.copy"' EXIT
    copy "$database.copy"
    cat "$database.copy"
    ;;
  keep)
    # The first release has nothing to save.
    [ -e "$database" ] || exit 0
    mkdir -p "$(dirname "$database")/backups"
    cd "$(dirname "$database")/backups"
    file=$(date +%F-%H%M%S).sqlite
    copy "$file.new"
    mv "$file.new" "$file"
    # Their names are dates, so that the order of names is the order of age
    set -- ????-??-??-??????.sqlite
    while [ $# -gt 30 ]; do
      rm -- "$1"
      shift
    done
    echo "Backup in $file; there are $#."
    ;;
  drill)
    trap 'rm -f "$database.drill"' EXIT
    cat >"$database.drill"
    try "$database.drill"
    ;;
  load)
    cat >"$loaded"
    try "$loaded" || {
      rm "$loaded"
      exit 1
    }
    ;;
  swap)
    kept=$database.before-$(date +%F-%H%M%S)
    # What still stands in the log goes into the file first; nobody uses it now.
    if [ -e "$database" ]; then
      ask "$database" 'PRAGMA wal_checkpoint(TRUNCATE)' >/dev/null
      mv "$database" "$kept"
      rm -f "$database-wal" "$database-shm"
    fi
    mv "$loaded" "$database"
    echo "What was there before is $kept. If nobody needs it, remove it."
    ;;
  *)
    echo "Usage: $0 save|keep|drill|load|swap" >&2
    exit 2
    ;;
esac
