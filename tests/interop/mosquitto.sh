#!/usr/bin/env bash
# Scripted talks of mosquitto_pub, mosquitto_sub and mosquitto_rr with a broker: every version of MQTT, over TCP.
#
#   tests/interop/mosquitto.sh HOST PORT [USERNAME PASSWORD]
#
# Prints one line per talk; ends with 1 when one failed.
set -uo pipefail
host=$1 port=$2
login=()
[ $# -ge 4 ] && login=(-u "$3" -P "$4")
work=$(mktemp -d)
children=()
# Only what this script started, and each by its id.
trap 'for pid in "${children[@]}"; do kill "$pid" 2>/dev/null; done; rm -rf "$work"' EXIT
failed=0
patience=15

pub() { timeout "$patience" mosquitto_pub -h "$host" -p "$port" "${login[@]}" -V "$version" "$@"; }
rr() { timeout "$patience" mosquitto_rr -h "$host" -p "$port" "${login[@]}" -V "$version" -W "$patience" "$@"; }

# Subscribes in the background, output in $work/NAME, and returns once the broker granted it; the process is in
# $subscriber. -W ends it when what it waits for does not come.
sub() {
  local name=$1
  shift
  : >"$work/$name.log"
  stdbuf -oL mosquitto_sub -h "$host" -p "$port" "${login[@]}" -V "$version" -W "$patience" -d "$@" >"$work/$name.log" 2>&1 &
  subscriber=$!
  children+=("$subscriber")
  local alive=true
  for _ in $(seq 300); do
    # In this order: one that has already got what it waits for was granted it, and is gone.
    kill -0 "$subscriber" 2>/dev/null || alive=false
    if grep -q '^Subscribed' "$work/$name.log"; then return 0; fi
    [ "$alive" = true ] || break
    sleep 0.05
  done
  echo "not subscribed:"
  cat "$work/$name.log"
  return 1
}

# Waits for a subscriber to have what it waits for (-C); what it printed, without its debug lines, is in $got.
came() {
  local name=$1
  wait "$subscriber"
  got=$(grep -vE '^(Client |Subscribed|Unsubscribed)' "$work/$name.log")
}

expect() {
  local wanted=$1 got=$2
  [ "$wanted" = "$got" ] && return 0
  printf 'wanted:\n%s\ncame:\n%s\n' "$wanted" "$got"
  return 1
}

talk() {
  local what=$1 output
  topic=interop/$run/$what
  if output=$("$what" 2>&1); then
    echo "ok      mosquitto clients MQTT $version: $what"
  else
    failed=1
    printf 'FAILED  mosquitto clients MQTT %s: %s\n%s\n' "$version" "$what" "$output"
  fi
}

every_qos_both_ways() {
  local granted sent wanted
  for granted in 0 1 2; do
    sub qos -q "$granted" -t "$topic/$granted" -C 3 -F '%q %r %p' || return 1
    wanted=
    for sent in 0 1 2; do
      pub -t "$topic/$granted" -q "$sent" -m "sent with $sent é" || return 1
      wanted+="$((sent < granted ? sent : granted)) 0 sent with $sent é"$'\n'
    done
    # A QoS 2 message is handed over at its PUBREL, so QoS 0 and 1 may be told of before it.
    came qos
    expect "$(sort <<<"${wanted%$'\n'}")" "$(sort <<<"$got")" || return 1
  done
}

retained() {
  pub -t "$topic" -q 1 -r -m old && pub -t "$topic" -q 1 -r -m kept || return 1
  sub retained -q 1 -t "$topic" -C 1 -F '%r %p' || return 1
  came retained
  expect '1 kept' "$got" || return 1
  pub -t "$topic" -q 1 -r -n || return 1
  sub cleared -q 1 -t "$topic" -C 1 -F '%r %p' || return 1
  pub -t "$topic" -q 1 -m live || return 1
  came cleared
  expect '0 live' "$got"
}

will() {
  sub will -q 1 -t "$topic" -C 1 -F '%p' || return 1
  local reader=$subscriber
  sub dying -q 1 -t "$topic/other" -i "${run}dying" --will-topic "$topic" --will-payload 'cut off' --will-qos 1 || return 1
  kill -KILL "$subscriber"
  subscriber=$reader
  came will
  expect 'cut off' "$got"
}

session_resume() {
  local keep=(-c -i "${run}keep" -q 1)
  # -E ends once the subscription is granted.
  timeout "$patience" mosquitto_sub -h "$host" -p "$port" "${login[@]}" -V "$version" "${keep[@]}" ${expiry[@]+"${expiry[@]}"} -t "$topic" -E || return 1
  local n wanted= all
  for n in 1 2 3 4 5; do
    pub -t "$topic" -q 1 -m "offline $n" || return 1
    wanted+="offline $n"$'\n'
  done
  all=$(timeout "$patience" mosquitto_sub -h "$host" -p "$port" "${login[@]}" -V "$version" "${keep[@]}" ${expiry[@]+"${expiry[@]}"} -t "$topic" -C 5)
  expect "${wanted%$'\n'}" "$all"
}

wildcards() {
  sub wild -q 1 -t "$topic/+/end" -t "$topic/deep/#" -C 3 -F '%t %p' || return 1
  pub -t "$topic/a/b/end" -q 1 -m no && pub -t "$topic/a/end" -q 1 -m plus && pub -t "$topic/deep" -q 1 -m parent &&
    pub -t "$topic/deep/x/y" -q 1 -m deep || return 1
  came wild
  expect "$topic/a/end plus"$'\n'"$topic/deep parent"$'\n'"$topic/deep/x/y deep" "$got"
}

# Many messages of one publisher that does not wait. In MQTT 5 fewer: mosquitto_pub 2.0.11 does not keep to the
# broker's receive maximum here, and even mosquitto then ends its connection.
many_lines() {
  local many=200
  [ "$version" != 5 ] || many=15
  sub lines -q 2 -t "$topic" -C "$many" || return 1
  seq "$many" | pub -t "$topic" -q 2 -l || return 1
  came lines
  expect "$(seq "$many")" "$got"
}

# In MQTT 5 the request says where the answer goes and which it is; before, both sides just know the topic.
request_and_response() {
  sub request -q 1 -t "$topic" -C 1 -F '%R|%D|%p' || return 1
  local server=$subscriber
  rr -q 1 -t "$topic" -e "$topic/answer" -m question ${correlation[@]+"${correlation[@]}"} >"$work/answer" 2>&1 &
  local asking=$!
  children+=("$asking")
  subscriber=$server
  came request
  if [ "$version" = 5 ]; then
    expect "$topic/answer|id-7|question" "$got" || return 1
    pub -t "$topic/answer" -q 1 -m answer -D publish correlation-data id-7 || return 1
  else
    pub -t "$topic/answer" -q 1 -m answer || return 1
  fi
  wait "$asking" || { cat "$work/answer"; return 1; }
  expect answer "$(cat "$work/answer")"
}

properties_of_5() {
  sub properties -q 1 -t "$topic" -C 1 -F '%C|%E|%P|%p' || return 1
  pub -t "$topic" -q 1 -m x -D publish content-type text/x -D publish message-expiry-interval 1000 \
    -D publish user-property b 1 -D publish user-property a 2 || return 1
  came properties
  [[ $got =~ ^text/x\|(999|1000)\|b:1\ a:2(\ .*)?\|x$ ]] || { echo "came: $got"; return 1; }
}

for version in 31 311 5; do
  run=m$(($$ % 100000))v$version
  expiry=() correlation=()
  case $version in
    5) expiry=(-x 300) correlation=(-D publish correlation-data id-7) ;;
    *) version=mqttv$version ;;
  esac
  for what in every_qos_both_ways wildcards many_lines retained will session_resume request_and_response; do
    talk "$what"
  done
  [ "$version" != 5 ] || talk properties_of_5
done
exit "$failed"
