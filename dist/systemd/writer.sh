# Sends the lines on stdin to the server at WRITE_URL; telegraf-taskstats-writer.service runs it. Lines that come without a pause, as
# the lines of a gather do, are one request, or several if they are many. The next lines are read when the request is answered: while
# the server does not answer, they wait in the pipe. A server that refuses lines (a status of 4xx) would refuse them again: they are
# dropped, and the log says so.
set -u
most=2000 # lines of a request

# quoted OPTION VALUE: prints a line of a curl configuration.
quoted() {
  local value=${2//\\/\\\\}
  printf '%s = "%s"\n' "$1" "${value//\"/\\\"}"
}

# Prints the parts of the request that must not appear in a command line: the URL, too, may contain a password.
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

# say TEXT: logs a text that differs from the one before. At first that is "taken again", so that success is not logged.
said="taken again"
say() {
  [[ $1 == "$said" ]] || echo "$1" >&2
  said=$1
}

part='' # the beginning of a line, if the pause came within it
while IFS= read -r line; do
  lines=$part$line part='' count=1
  while ((count++ < most)); do
    IFS= read -r -t 0.2 line || { part=$line; break; }
    lines+=$'\n'$line
  done
  until send "$lines"; do sleep 5; done
done
