#!/usr/bin/env bash
# Runs every test of this directory, one after the other, and says which failed.
#
#   tests/integration/run-integration-tests.sh [TEST...]                default: all; a TEST is a name such as test-get-status
#
# Their settings are in README.md.

set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")" || exit 1

tests=("$@")
((${#tests[@]} > 0)) || tests=(test-get-status test-scale-api test-scale-to-zero test-triton-inference)
failed=()
for test in "${tests[@]}"; do
  test=${test%.sh}
  if [[ ! -x $test.sh || $test != test-* ]]; then
    printf 'there is no test %s here\n' "$test" >&2
    failed+=("$test")
    continue
  fi
  printf '\n==== %s\n' "$test"
  "./$test.sh"
  code=$?
  # Whoever ends the test wants no further one.
  ((code == 130 || code == 143)) && exit "$code"
  ((code == 0)) || failed+=("$test")
done

printf '\n%d of %d tests passed\n' "$((${#tests[@]} - ${#failed[@]}))" "${#tests[@]}"
if ((${#failed[@]} > 0)); then
  printf 'failed: %s\n' "${failed[*]}"
  exit 1
fi
