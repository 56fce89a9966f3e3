#!/usr/bin/env bash
# The Scale API scales a Deployment up, down, to zero and up again, and the cluster does as it says.
#
#   tests/integration/test-scale-api.sh [NAMESPACE] [DEPLOYMENT]        default: project-a sample-app-a
#
# Settings: SCALE_API_ENDPOINT, API_KEY, API_TIMEOUT [30], SETTLE_TIMEOUT [10]; all in seconds.

API_TIMEOUT=${API_TIMEOUT:-30}
# Seconds in which the cluster must want what the Scale API was told.
SETTLE_TIMEOUT=${SETTLE_TIMEOUT:-10}
source "$(dirname "${BASH_SOURCE[0]}")/test-framework.sh"

NAMESPACE=${1:-project-a}
DEPLOYMENT=${2:-sample-app-a}

wants() {
  local count
  count=$(wanted) || { printf '%s' "$count"; return 1; }
  [[ $count == "$1" ]] && return 0
  printf 'the cluster wants %s' "$count"
  return 1
}

# verify COUNT: what the Scale API says, and what the cluster says.
verify() {
  call GET "$(path status)"
  expect "status says $1" 200 ".deployment.desired_replicas == $1"
  wait_for "$SETTLE_TIMEOUT" 1 "the cluster wants $1" wants "$1"
}

begin "Scale API: scaling $DEPLOYMENT in $NAMESPACE" SETTLE_TIMEOUT
reach_scale_api
remember

step 'Health and readiness'
call GET /health
expect 'health' 200 '.status == "healthy"'
call GET /ready
expect 'ready' 200 '.status == "ready" and .kubernetes == "connected"'

step 'Status'
call GET "$(path status)"
expect 'status' 200 ".status == \"success\" and .deployment.name == \"$DEPLOYMENT\""

for count in 3 2; do
  step "To $count"
  scale_up "$count"
  expect "scaled to $count" 200 ".status == \"success\" and .deployment.target_replicas == $count"
  verify "$count"
done

step 'To zero'
scale_to_zero
expect 'scaled to zero' 200 '.status == "success" and .deployment.target_status == "scaled-to-zero"'
verify 0

step 'Up again'
scale_up 1
expect 'scaled to 1' 200 '.deployment.previous_replicas == 0 and .deployment.target_status == "scaling-up"'
verify 1

finish
