#!/usr/bin/env bash
# Runs commands at the same time, for stages of a test run that mostly wait:
#
#   hack/side-by-side.sh NAME COMMAND [NAME COMMAND ...]
#
# A COMMAND is a line for bash. Each line of its output begins with its NAME. All run to their end; then the
# times are printed, and of what failed the last lines once more. The exit code is 1 if any failed.
set -euo pipefail

if (($# == 0 || $# % 2)) || [[ ${1:-} == --help ]]; then
  sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "${BASH_SOURCE[0]}"
  [[ ${1:-} == --help ]] && exit 0
  exit 2
fi

logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT

run() {
  local name=$1 command=$2 start=$SECONDS status
  set +e
  bash -euo pipefail -c "$command" 2>&1 | tee "$logs/$name" | sed -u "s/^/$name | /"
  status=${PIPESTATUS[0]}
  printf '%d %d\n' "$status" $((SECONDS - start)) >"$logs/$name.ended"
}

names=()
while (($#)); do
  names+=("$1")
  run "$1" "$2" &
  shift 2
done
wait

failed=()
echo
for name in "${names[@]}"; do
  read -r status seconds <"$logs/$name.ended"
  word=passed
  ((status)) && word="FAILED ($status)" && failed+=("$name")
  printf '%5d s  %-12s %s\n' "$seconds" "$name" "$word"
done
for name in ${failed[@]+"${failed[@]}"}; do
  printf '\n--- the end of %s\n' "$name"
  tail -n 60 "$logs/$name"
done
((${#failed[@]} == 0))
