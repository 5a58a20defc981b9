# Sends the lines on stdin to the server at WRITE_URL, as telegraf-taskstats-writer.service runs it: those that come without a pause,
# as the lines of a gather do, in one request, or in several if they are many. No more is read until that is answered: while the
# server is away, what comes waits in the pipe. A server that refuses lines (a status of 4xx) will do so again: these are dropped,
# and the log says so.
set -u
most=2000 # lines of a request

# quoted OPTION VALUE: as curl reads it.
quoted() {
  local value=${2//\\/\\\\}
  printf '%s = "%s"\n' "$1" "${value//\"/\\\"}"
}

# What is not to be seen in a command line: also the URL may have a password in it.
request() {
  quoted url "$WRITE_URL"
  [[ -z ${WRITE_TOKEN-} ]] || quoted header "Authorization: Token $WRITE_TOKEN"
}

send() {
  local answer status
  answer=$(curl --silent --show-error --globoff --max-time 30 --config <(request) --data-binary @- \
    --write-out '\n%{http_code}' <<<"$1" 2>&1)
  status=${answer##*$'\n'}
  answer=${answer%$'\n'*}
  answer=${answer//$'\n'/ }
  case $status in
    2??) say "taken again"; return ;;
    408 | 429) ;;
    4??) echo "refused with status $status, and dropped, all or some of $(wc -l <<<"$1") lines: ${answer:0:200}" >&2; return ;;
  esac
  say "not taken with status $status, to be tried again until it is: ${answer:0:200}"
  return 1
}

# Says it if something else was said before; that all goes well, at first, was.
said="taken again"
say() {
  [[ $1 == "$said" ]] || echo "$1" >&2
  said=$1
}

part='' # of a line, where the pause came within it
while IFS= read -r line; do
  lines=$part$line part='' count=1
  while ((count++ < most)); do
    IFS= read -r -t 0.2 line || { part=$line; break; }
    lines+=$'\n'$line
  done
  until send "$lines"; do sleep 5; done
done
