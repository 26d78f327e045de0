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

[ "$size" -gt 0 ] || exec curl -fsS "$@" -T "$file" "${url%\?*}" # an empty file has no missing bytes

wait=1
while :; do
  offset=$(curl -sI -o /dev/null -w '%header{upload-offset}' "$@" "$url") || offset=
  if [ "${offset:-0}" -ge "$size" ]; then
    echo "$file is stored" >&2
    exit 0
  fi
  status=0
  tail -c "+$((${offset:-0} + 1))" "$file" |
    curl -sS --fail-with-body "$@" -H "Content-Range: bytes ${offset:-0}-$((size - 1))/$size" \
      -T - "$url" || status=$?
  [ "$status" -ne 0 ] || exit 0
  # 22: the server refused it, and said why. 409 tells of another offset, which the next turn asks for.
  if [ "$status" -eq 22 ]; then exit 1; fi
  echo "interrupted (curl: $status): next attempt in $wait s" >&2
  sleep "$wait"
  wait=$((wait < 30 ? wait * 2 : 30))
done
