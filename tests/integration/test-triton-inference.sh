#!/usr/bin/env bash
# The inference server on the GPU pool wakes, loads its model and answers; afterwards it sleeps again if it slept before.
#
#   tests/integration/test-triton-inference.sh [NAMESPACE] [DEPLOYMENT] default: project-b sample-app-b
#
# Without a GPU node it is skipped. GPU_POOL_AT_ZERO=true says that an autoscaler brings one, and that it must.
# Settings: SCALE_API_ENDPOINT, API_KEY, API_TIMEOUT [30], MODEL_TIMEOUT [120], NODE_TIMEOUT [900], TRITON_TIMEOUT [180],
# RETRY_INTERVAL [10]; all in seconds. TRITON_HTTP_PORT [8000] and TRITON_GRPC_PORT [8001] are the ports on this machine.

API_TIMEOUT=${API_TIMEOUT:-30}
MODEL_TIMEOUT=${MODEL_TIMEOUT:-120}
NODE_TIMEOUT=${NODE_TIMEOUT:-900}
TRITON_TIMEOUT=${TRITON_TIMEOUT:-180}
RETRY_INTERVAL=${RETRY_INTERVAL:-10}
TRITON_HTTP_PORT=${TRITON_HTTP_PORT:-8000}
TRITON_GRPC_PORT=${TRITON_GRPC_PORT:-8001}
source "$(dirname "${BASH_SOURCE[0]}")/test-framework.sh"

NAMESPACE=${1:-project-b}
DEPLOYMENT=${2:-sample-app-b}
GPU='workload=gpu'
MODEL=resnet50
TRITON=http://localhost:$TRITON_HTTP_PORT

# answers PATH [FILTER]: whether Triton says 200 there, and the filter is true of it.
answers() {
  local said
  said=$(curl --silent --show-error --fail --max-time 10 "$TRITON$1" 2>&1) || { printf '%s' "$said"; return 1; }
  [[ -z ${2:-} ]] || jq --exit-status "$2" <<<"$said" >/dev/null 2>&1 || { printf '%s' "$said"; return 1; }
}

# One picture, all grey, as the model wants it.
picture() {
  jq --null-input --compact-output '{inputs: [{name: "data", shape: [1, 3, 224, 224], datatype: "FP32",
    data: [range(3 * 224 * 224) | 0.5]}]}'
}

begin "Inference: $DEPLOYMENT in $NAMESPACE" MODEL_TIMEOUT NODE_TIMEOUT TRITON_TIMEOUT RETRY_INTERVAL \
  TRITON_HTTP_PORT TRITON_GRPC_PORT
found=$(nodes "$GPU" 2>&1) || abort "the nodes cannot be listed: $found"
if [[ -z $found && ${GPU_POOL_AT_ZERO:-false} != true ]]; then
  skip "no node has $GPU; where an autoscaler brings one, set GPU_POOL_AT_ZERO=true"
fi
reach_scale_api
remember

step 'Wake'
scale_up 1
expect 'scaled to 1' 200 '.status == "success"' || abort 'what does not start cannot answer'
wait_for "$NODE_TIMEOUT" "$RETRY_INTERVAL" 'a GPU node is there' some_node "$GPU" || abort 'without a node there is no answer'
wait_for "$NODE_TIMEOUT" "$RETRY_INTERVAL" 'one replica is ready' is_ready 1 || abort 'it does not run'

step 'Server and model'
forward "$NAMESPACE" "$DEPLOYMENT" "$TRITON_HTTP_PORT:8000" "$TRITON_GRPC_PORT:8001"
wait_for "$TRITON_TIMEOUT" "$RETRY_INTERVAL" 'Triton is ready' answers /v2/health/ready || abort 'Triton is not ready'
wait_for "$MODEL_TIMEOUT" "$RETRY_INTERVAL" "model $MODEL is ready" answers "/v2/models/$MODEL/ready"
wait_for 1 1 'the model says its tensors' answers "/v2/models/$MODEL" \
  '(.inputs[0].shape[-3:] == [3, 224, 224]) and (.outputs[0].shape[-1] == 1000)'

step 'Inference'
picture >"$SCRATCH/picture"
ANSWER=$(curl --silent --show-error --max-time "$API_TIMEOUT" --header 'Content-Type: application/json' \
  --data "@$SCRATCH/picture" --write-out '\n%{http_code}' "$TRITON/v2/models/$MODEL/infer" 2>&1)
# `expect` judges it.
# shellcheck disable=SC2034
STATUS=${ANSWER##*$'\n'}
ANSWER=${ANSWER%$'\n'*}
expect 'one picture gives 1,000 scores' 200 '.outputs[0] | .shape == [1, 1000] and (.data | length) == 1000'

finish
