# Sends the lines on stdin to the server at WRITE_URL, as telegraf-taskstats-writer.service runs it: those that come without a pause,
# as the lines of a gather do, in one request. No more is read until that is answered: while the server is away, what comes waits
# in the pipe. A server that refuses lines (a status of 4xx) will do so again: these are dropped, and the log says so.
set -u

# The token is not to be seen in a command line.
token() {
  local token=${WRITE_TOKEN-}
  token=${token//\\/\\\\}
  [[ -z $token ]] || printf 'header = "Authorization: Token %s"\n' "${token//\"/\\\"}"
}

send() {
  local status
  status=$(curl --silent --show-error --max-time 30 --config <(token) --data-binary @- \
    --output /dev/null --write-out '%{http_code}' "$WRITE_URL" <<<"$1")
  case $status in
    2??) return ;;
    408 | 429) ;;
    4??) echo "refused with status $status, and dropped: $(wc -l <<<"$1") lines" >&2; return ;;
  esac
  echo "not taken (status $status), to be tried again" >&2
  return 1
}

part='' # of a line, where the pause came within it
while IFS= read -r line; do
  lines=$part$line
  while IFS= read -r -t 0.2 line; do lines+=$'\n'$line; done
  part=$line
  until send "$lines"; do sleep 5; done
done
