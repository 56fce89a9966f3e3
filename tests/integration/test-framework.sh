#!/usr/bin/env bash
# What the tests of this directory share: settings, calls of the Scale API, checks with their report, and an orderly end.
#
# A test sources it, calls `begin`, makes its checks and ends with `finish`. However it ends, the Deployment gets back the
# count that it had, and the port-forwards that were started here are ended by their own process ids. A failed check is
# counted and the test goes on; `abort` is for faults behind which nothing makes sense any more. Both end in exit code 1.

set -uo pipefail

SCALE_API_ENDPOINT=${SCALE_API_ENDPOINT:-http://localhost:8080}
SCALE_API_ENDPOINT=${SCALE_API_ENDPOINT%/}
# Seconds that one call of the Scale API may take.
API_TIMEOUT=${API_TIMEOUT:-10}
# Seconds until a port-forward must listen.
FORWARD_TIMEOUT=${FORWARD_TIMEOUT:-30}

PASSED=0
FAILED=0
STATUS=000
ANSWER=
TOOK=0
FORWARDS=()
RESTORE=
SCRATCH=

if [[ -n ${NO_COLOR:-} || ! -t 1 ]]; then
  GREEN='' RED='' YELLOW='' PLAIN=''
else
  GREEN=$'\e[32m' RED=$'\e[31m' YELLOW=$'\e[33m' PLAIN=$'\e[0m'
fi

# begin TITLE NUMBER-SETTING...: checks the tools and the settings that must be numbers.
begin() {
  local title=$1 tool setting
  shift
  SCRATCH=$(mktemp -d)
  trap end EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM
  printf '%s\n' "$title"
  for tool in curl jq kubectl; do
    command -v "$tool" >/dev/null || abort "$tool is not installed"
  done
  for setting in API_TIMEOUT FORWARD_TIMEOUT "$@"; do
    [[ ${!setting} =~ ^[1-9][0-9]*$ ]] || abort "$setting is '${!setting}', and must be a whole number of at least 1"
  done
  [[ $SCALE_API_ENDPOINT =~ ^https?://[^/]+$ ]] ||
    abort "SCALE_API_ENDPOINT is '$SCALE_API_ENDPOINT', and must be like http://localhost:8080"
}

# finish: the summary, and the exit code.
finish() {
  restore
  summary
  ((FAILED == 0)) && exit 0
  exit 1
}

# abort TEXT: what makes all that follows senseless.
abort() {
  fail "$1"
  restore
  summary
  exit 1
}

skip() {
  printf '%sSKIP%s %s\n' "$YELLOW" "$PLAIN" "$1"
  summary
  exit 0
}

pass() {
  PASSED=$((PASSED + 1))
  printf '%sPASS%s %s\n' "$GREEN" "$PLAIN" "$1"
}

fail() {
  FAILED=$((FAILED + 1))
  printf '%sFAIL%s %s\n' "$RED" "$PLAIN" "$1"
}

step() {
  printf -- '---- %s\n' "$1"
}

summary() {
  local all=$((PASSED + FAILED)) rate=-
  ((all > 0)) && rate=$((PASSED * 100 / all))%
  printf 'total %d, passed %d, failed %d, success rate %s\n' "$all" "$PASSED" "$FAILED" "$rate"
}

end() {
  local code=$? forward
  trap - EXIT
  restore
  for forward in "${FORWARDS[@]+"${FORWARDS[@]}"}"; do
    kill "$forward" 2>/dev/null
    wait "$forward" 2>/dev/null
  done
  [[ -n $SCRATCH ]] && rm -rf -- "$SCRATCH"
  # What could not be restored is a fault of the test, even when everything before was well.
  ((code == 0 && FAILED > 0)) && code=1
  exit "$code"
}

# call METHOD PATH [BODY]: sets STATUS, ANSWER and TOOK (milliseconds). STATUS is 000 when there was no answer.
call() {
  local method=$1 path=$2 body=${3:-} meta
  local -a arguments=(--silent --show-error --max-time "$API_TIMEOUT" --request "$method" --output "$SCRATCH/answer")
  # From a file, so that the key stands in no list of processes.
  if [[ -n ${API_KEY:-} ]]; then
    (umask 077 && printf 'Authorization: Bearer %s\n' "$API_KEY" >"$SCRATCH/key")
    arguments+=(--header "@$SCRATCH/key")
  fi
  [[ -n $body ]] && arguments+=(--header 'Content-Type: application/json' --data "$body")
  : >"$SCRATCH/answer"
  meta=$(curl "${arguments[@]}" --write-out '%{http_code} %{time_total}' "$SCALE_API_ENDPOINT$path" 2>"$SCRATCH/errors")
  read -r STATUS TOOK <<<"$meta"
  TOOK=$(awk -v seconds="${TOOK:-0}" 'BEGIN { printf "%d", seconds * 1000 }')
  ANSWER=$(<"$SCRATCH/answer")
  [[ $STATUS == 000 ]] && ANSWER=$(<"$SCRATCH/errors")
  return 0
}

# expect WHAT STATUS [JQ-FILTER]: judges the last call.
expect() {
  local what=$1 status=$2 filter=${3:-}
  if [[ $STATUS != "$status" ]]; then
    fail "$what: status $STATUS instead of $status: $ANSWER"
    return 1
  fi
  if [[ -n $filter ]] && ! jq --exit-status "$filter" <<<"$ANSWER" >/dev/null 2>&1; then
    fail "$what: not true of the answer: $filter: $ANSWER"
    return 1
  fi
  pass "$what"
}

# wait_for SECONDS EVERY WHAT COMMAND...: the command prints why it is not so yet.
wait_for() {
  local limit=$1 every=$2 what=$3 begun=$SECONDS said
  shift 3
  until said=$("$@" 2>&1); do
    if ((SECONDS - begun >= limit)); then
      fail "$what: not within $limit s: ${said:-no reason given}"
      return 1
    fi
    sleep "$every"
  done
  pass "$what (after $((SECONDS - begun)) s)"
}

# forward NAMESPACE SERVICE LOCAL:REMOTE...: ends with the test.
forward() {
  local namespace=$1 service=$2 log begun=$SECONDS pair
  shift 2
  log=$SCRATCH/forward-${#FORWARDS[@]}
  kubectl port-forward --namespace "$namespace" "service/$service" "$@" >"$log" 2>&1 &
  FORWARDS+=($!)
  for pair in "$@"; do
    until grep -q "^Forwarding from .*:${pair%%:*} ->" "$log"; do
      kill -0 "${FORWARDS[-1]}" 2>/dev/null || abort "port-forward to $service in $namespace ended: $(<"$log")"
      ((SECONDS - begun < FORWARD_TIMEOUT)) || abort "port-forward to $service in $namespace: not within $FORWARD_TIMEOUT s"
      sleep 0.1
    done
  done
}

# reach_scale_api: a Scale API that answers at the endpoint is taken; else it is forwarded there from the cluster.
reach_scale_api() {
  local address=${SCALE_API_ENDPOINT#*://} host port
  call GET /health
  if [[ $STATUS != 000 ]]; then
    expect "Scale API answers at $SCALE_API_ENDPOINT" 200 '.status == "healthy"' ||
      abort "at $SCALE_API_ENDPOINT is something else than a Scale API that is well"
    return
  fi
  host=${address%:*} port=${address##*:}
  [[ $host == localhost || $host == 127.0.0.1 ]] && [[ $port =~ ^[0-9]+$ ]] ||
    abort "nothing answers at $SCALE_API_ENDPOINT: $ANSWER"
  forward scale-system scale-api "$port:80"
  call GET /health
  expect "Scale API answers through a port-forward" 200 '.status == "healthy"' || abort "the Scale API is not well"
}

# The path of a verb of the Deployment that is tested.
path() {
  printf '/api/v1/deployments/%s/%s/%s' "$NAMESPACE" "$DEPLOYMENT" "$1"
}

scale_up() {
  call POST "$(path scale-up)" "{\"replicas\": $1, \"reason\": \"integration test\"}"
}

scale_to_zero() {
  call POST "$(path scale-to-zero)" '{"reason": "integration test"}'
}

# wanted: the count that the cluster is asked for.
wanted() {
  kubectl get deployment "$DEPLOYMENT" --namespace "$NAMESPACE" --output 'jsonpath={.spec.replicas}' --request-timeout 10s
}

# remember: the count that the Deployment gets back at the end.
remember() {
  RESTORE=$(wanted 2>"$SCRATCH/errors") ||
    abort "no Deployment $DEPLOYMENT in $NAMESPACE: $(<"$SCRATCH/errors")"
  [[ $RESTORE =~ ^[0-9]+$ ]] || abort "Deployment $DEPLOYMENT in $NAMESPACE says no count"
  printf 'Deployment %s in %s has %s replicas; it gets them back at the end\n' "$DEPLOYMENT" "$NAMESPACE" "$RESTORE"
}

# restore: through the Scale API, so that it keeps what it remembers; else without it, because running costs money.
restore() {
  local count=$RESTORE
  [[ -n $count ]] || return 0
  RESTORE=
  [[ $(wanted 2>/dev/null) == "$count" ]] && return 0
  if ((count == 0)); then scale_to_zero; else scale_up "$count"; fi
  [[ $STATUS == 200 && $(wanted 2>/dev/null) == "$count" ]] && return 0
  fail "the Scale API did not bring $DEPLOYMENT back to $count replicas: $STATUS: $ANSWER"
  kubectl scale deployment "$DEPLOYMENT" --namespace "$NAMESPACE" --replicas "$count" --request-timeout 10s >/dev/null ||
    fail "nor did kubectl: run 'kubectl scale deployment $DEPLOYMENT -n $NAMESPACE --replicas=$count'"
}

# Conditions for wait_for. Each prints why it does not hold.

is_ready() {
  local said
  said=$(kubectl get deployment "$DEPLOYMENT" --namespace "$NAMESPACE" --request-timeout 10s \
    --output 'jsonpath={.status.readyReplicas}/{.spec.replicas}') || { printf '%s' "$said"; return 1; }
  [[ $said == "$1/$1" ]] && return 0
  printf '%s replicas are ready; %s' "$said" "$(why_not_running)"
  return 1
}

why_not_running() {
  kubectl get pods --namespace "$NAMESPACE" --selector "app=$DEPLOYMENT" --request-timeout 10s --output json |
    jq --raw-output '[.items[] | "\(.metadata.name) \(.status.phase) "
      + ([.status.conditions[]? | select(.status != "True") | "\(.reason // .type): \(.message // "")"] | join("; "))]
      | join(", ")'
}

no_pods() {
  local pods
  pods=$(kubectl get pods --namespace "$NAMESPACE" --selector "app=$DEPLOYMENT" --output name --request-timeout 10s) || {
    printf '%s' "$pods"
    return 1
  }
  [[ -z $pods ]] && return 0
  printf 'still there: %s' "${pods//$'\n'/ }"
  return 1
}

# nodes SELECTOR: their names. `kubectl get` of nothing is no error, so what counts is what it prints.
nodes() {
  kubectl get nodes --selector "$1" --output 'jsonpath={.items[*].metadata.name}' --request-timeout 10s
}

some_node() {
  local found
  found=$(nodes "$1") || { printf '%s' "$found"; return 1; }
  [[ -n $found ]] && return 0
  printf 'no node has %s' "$1"
  return 1
}

no_node() {
  local found node
  found=$(nodes "$1") || { printf '%s' "$found"; return 1; }
  [[ -z $found ]] && return 0
  for node in $found; do
    printf '%s is still there, with %s; ' "$node" "$(kubectl get pods --all-namespaces --request-timeout 10s \
      --field-selector "spec.nodeName=$node" --output 'jsonpath={.items[*].metadata.name}')"
  done
  return 1
}
