#!/usr/bin/env bash
# The status of a Deployment is complete, quick and the same form every time; what does not exist is a 404.
#
#   tests/integration/test-get-status.sh [NAMESPACE] [DEPLOYMENT]       default: project-a sample-app-a
#
# It changes nothing. Settings: SCALE_API_ENDPOINT, API_KEY, API_TIMEOUT [10] in seconds, REPLY_MILLISECONDS [2000].

# A slower reply is a fault.
REPLY_MILLISECONDS=${REPLY_MILLISECONDS:-2000}
source "$(dirname "${BASH_SOURCE[0]}")/test-framework.sh"

NAMESPACE=${1:-project-a}
DEPLOYMENT=${2:-sample-app-a}

# quick WHAT: judges how long the last call took.
quick() {
  if ((TOOK <= REPLY_MILLISECONDS)); then
    pass "$1: $TOOK ms"
  else
    fail "$1: $TOOK ms, and $REPLY_MILLISECONDS are allowed"
  fi
}

begin "Scale API: status of $DEPLOYMENT in $NAMESPACE" REPLY_MILLISECONDS
reach_scale_api

step 'One call'
call GET "$(path status)"
expect 'valid JSON' 200 'type == "object"'
expect 'who it is' 200 ".status == \"success\" and .deployment.namespace == \"$NAMESPACE\" and .deployment.name == \"$DEPLOYMENT\""
expect 'all fields' 200 \
  '["namespace", "name", "desired_replicas", "current_replicas", "available_replicas", "status"] - (.deployment | keys) == []'
expect 'counts of at least 0' 200 \
  '.deployment | [.desired_replicas, .current_replicas, .available_replicas] | all(type == "number" and . >= 0)'
quick 'reply'

step 'What does not exist'
deployment=$DEPLOYMENT namespace=$NAMESPACE
DEPLOYMENT=no-such-deployment
call GET "$(path status)"
expect 'missing Deployment' 404 '.status == "error" and (.message | contains("not found"))'
DEPLOYMENT=$deployment NAMESPACE=no-such-namespace
call GET "$(path status)"
expect 'missing namespace' 404 '.status == "error" and (.message | contains("not found"))'
NAMESPACE=$namespace

step 'Five calls in a row'
for n in 1 2 3 4 5; do
  call GET "$(path status)"
  expect "call $n" 200 '.status == "success"'
  quick "call $n"
done

finish
