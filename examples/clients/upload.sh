#!/bin/sh
# Uploads a file with curl, and goes on where an interrupted attempt ended:
#   upload.sh FILE URL          for example: upload.sh film.mp4 http://127.0.0.1:8080/upload/film.mp4
# UPLOAD_TOKEN is sent as a bearer token. Run it again after a failure: only the missing bytes are sent.
# Needs curl 7.84 or later. The upload is known by the file's digest, so two files never mix.
set -eu
file=$1 size=$(wc -c < "$1" | tr -d ' ')
url="$2?resume=$(sha256sum "$file" | cut -c 1-32)"
set -- # the arguments that every curl gets
[ -z "${UPLOAD_TOKEN:-}" ] || set -- -H "Authorization: Bearer $UPLOAD_TOKEN"

[ "$size" -gt 0 ] || exec curl -sS --fail-with-body "$@" -T "$file" "${url%\?*}" # nothing to go on with

answer=$(mktemp)
trap 'rm -f "$answer"' EXIT
wait=1
while :; do
  offset=$(curl -sI -o /dev/null -w '%header{upload-offset}' "$@" "$url") || offset=
  status=$(tail -c "+$((${offset:-0} + 1))" "$file" |
    curl -sS -o "$answer" -w '%{http_code}' "$@" \
      -H "Content-Range: bytes ${offset:-0}-$((size - 1))/$size" -T - "$url") || status=000
  case $status in
    2??) cat "$answer"; exit 0 ;;
    # No answer, another offset, or later: the next turn asks how much has come.
    000 | 408 | 423 | 429 | 5??) ;;
    409) grep -q mismatching_offset "$answer" || { cat "$answer" >&2; exit 1; } ;;
    *) cat "$answer" >&2; exit 1 ;;
  esac
  echo "interrupted ($status): next attempt in $wait s" >&2
  sleep "$wait"
  wait=$((wait < 30 ? wait * 2 : 30))
done
