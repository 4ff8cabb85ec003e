#!/usr/bin/env bash
# Writes what is made from something else: the CRDs and the admission policies from the Rust types (each
# with the chart's copy) and the table of reasons in docs/operations.md, and the Kustomize base's RBAC and Deployment from the chart. With --check it changes nothing and fails if
# something is out of date. Needs MOORAGE_HELM and MOORAGE_BIN (the moorage program).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

: "${MOORAGE_HELM:?load the tools first: env=\$(hack/tools.sh --env) && eval \"\$env\"}"
: "${MOORAGE_BIN:?set it to the moorage program, such as target/debug/moorage}"
case ${1:-} in
  '' | --check) ;;
  *) echo "usage: hack/generate.sh [--check]" >&2 && exit 2 ;;
esac

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
export HELM_CACHE_HOME=$scratch/helm HELM_CONFIG_HOME=$scratch/helm HELM_DATA_HOME=$scratch/helm

# The chart's templates without what only Helm needs.
render() {
  local arguments=() template
  for template in "$@"; do arguments+=(--show-only "templates/$template"); done
  echo "# Generated from charts/moorage by make generate. Do not edit."
  "$MOORAGE_HELM" template moorage charts/moorage --namespace moorage-system "${arguments[@]}" |
    sed -e '/^# Source: /d' -e '/helm\.sh\/chart:/d' -e 's/managed-by: Helm/managed-by: kustomize/'
}

"$MOORAGE_BIN" crds --dir "$scratch/new/crds" --dir "$scratch/new/charts/moorage/files/crds"
"$MOORAGE_BIN" admission-policies --dir "$scratch/new/charts/moorage/files/policies" --dir "$scratch/new/config/admission"
mkdir -p "$scratch/new/docs"
"$MOORAGE_BIN" reasons >"$scratch/reasons.md"
sed -e '/^<!-- reasons: begin/r '"$scratch/reasons.md" -e '/^<!-- reasons: begin/,/^<!-- reasons: end/{/^<!-- /!d}' docs/operations.md >"$scratch/new/docs/operations.md"
mkdir -p "$scratch/new/config/rbac" "$scratch/new/config/manager"
render serviceaccount.yaml rbac.yaml rbac-people.yaml >"$scratch/new/config/rbac/rbac.yaml"
render service.yaml deployment.yaml >"$scratch/new/config/manager/manager.yaml"

outdated=0
while IFS= read -r -d '' file; do
  path=${file#"$scratch/new/"}
  cmp -s "$file" "$path" && continue
  if [[ ${1:-} == --check ]]; then
    echo "$path is out of date: run make generate" >&2
    diff -u "$path" "$file" | head -20 >&2 || true
    outdated=1
  else
    mkdir -p "$(dirname "$path")"
    cp "$file" "$path"
    echo "wrote $path"
  fi
done < <(find "$scratch/new" -type f -print0)
exit $outdated
