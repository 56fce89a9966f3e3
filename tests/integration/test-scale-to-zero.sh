#!/usr/bin/env bash
# A Deployment that goes to zero takes its nodes with it: pods end, the node pool is empty, and before that a wake filled it.
#
#   tests/integration/test-scale-to-zero.sh [NAMESPACE] [DEPLOYMENT]    default: project-a sample-app-a
#
# It needs a node autoscaler, and a pool whose nodes carry the label that the Deployment selects, project=a or project=b.
# Settings: SCALE_API_ENDPOINT, API_KEY, API_TIMEOUT [30], READY_TIMEOUT [900], NODES_GONE_TIMEOUT [1200],
# POLL_INTERVAL [60]; all in seconds.

API_TIMEOUT=${API_TIMEOUT:-30}
READY_TIMEOUT=${READY_TIMEOUT:-900}
# Pods end within their grace period and the nodes go a while later; both count.
NODES_GONE_TIMEOUT=${NODES_GONE_TIMEOUT:-1200}
POLL_INTERVAL=${POLL_INTERVAL:-60}
source "$(dirname "${BASH_SOURCE[0]}")/test-framework.sh"

NAMESPACE=${1:-project-a}
DEPLOYMENT=${2:-sample-app-a}

begin "Scale to zero: $DEPLOYMENT in $NAMESPACE and its nodes" READY_TIMEOUT NODES_GONE_TIMEOUT POLL_INTERVAL
reach_scale_api
remember
project=$(kubectl get deployment "$DEPLOYMENT" --namespace "$NAMESPACE" --request-timeout 10s \
  --output 'jsonpath={.spec.template.spec.nodeSelector.project}')
[[ -n $project ]] || abort "$DEPLOYMENT selects no nodes by the label 'project', so none of them would go with it"

step 'Up to 1'
scale_up 1
expect 'scaled to 1' 200 '.status == "success"' || abort 'what does not start cannot be put to sleep'
wait_for "$READY_TIMEOUT" "$POLL_INTERVAL" 'one replica is ready' is_ready 1 || abort 'it does not run'
wait_for 1 1 "a node with project=$project is there" some_node "project=$project"

step 'To zero'
scale_to_zero
expect 'scaled to zero' 200 '.deployment.target_status == "scaled-to-zero"' || abort 'it does not go to sleep'
wait_for "$NODES_GONE_TIMEOUT" "$POLL_INTERVAL" "no pod has app=$DEPLOYMENT" no_pods
wait_for "$NODES_GONE_TIMEOUT" "$POLL_INTERVAL" "no node has project=$project" no_node "project=$project"

finish
