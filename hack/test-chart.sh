#!/usr/bin/env bash
# Checks the chart and the Kustomize base with the real helm and kubectl, without a cluster. Needs
# MOORAGE_HELM, MOORAGE_KUBECTL and python3.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
: "${MOORAGE_HELM:?load the tools first: env=\$(hack/tools.sh --env) && eval \"\$env\"}"
: "${MOORAGE_KUBECTL:?load the tools first: env=\$(hack/tools.sh --env) && eval \"\$env\"}"

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
export HELM_CACHE_HOME=$scratch/helm HELM_CONFIG_HOME=$scratch/helm HELM_DATA_HOME=$scratch/helm
failed=0
passed=0

fail() { echo "FAILED: $*" >&2 && failed=1; }
pass() { passed=$((passed + 1)); }
render() { "$MOORAGE_HELM" template moorage charts/moorage --namespace moorage-system "$@"; }

# check WHAT PATTERN [HELM ARGUMENTS]: what is rendered has the (fixed, one-line) pattern.
check() {
  local what=$1 pattern=$2
  shift 2
  if ! render "$@" >"$scratch/out" 2>"$scratch/error"; then
    fail "$what: $(<"$scratch/error")"
  elif grep -qF -- "$pattern" "$scratch/out"; then pass; else fail "$what: nothing says '$pattern'"; fi
}
# lacks WHAT PATTERN [HELM ARGUMENTS]
lacks() {
  local what=$1 pattern=$2
  shift 2
  if ! render "$@" >"$scratch/out" 2>"$scratch/error"; then
    fail "$what: $(<"$scratch/error")"
  elif grep -qF -- "$pattern" "$scratch/out"; then fail "$what: there is '$pattern'"; else pass; fi
}
# refuses WHAT MESSAGE [HELM ARGUMENTS]
refuses() {
  local what=$1 message=$2
  shift 2
  if render "$@" >/dev/null 2>"$scratch/error"; then
    fail "$what: was taken"
  elif grep -qF -- "$message" "$scratch/error"; then pass; else fail "$what: does not say '$message': $(<"$scratch/error")"; fi
}

"$MOORAGE_HELM" lint --strict --quiet charts/moorage || fail "helm lint"

check "the CRDs stay at uninstall" "helm.sh/resource-policy: keep"
lacks "the CRDs can be left out" "kind: CustomResourceDefinition" --set crds.install=false
lacks "one replica has no disruption budget" "kind: PodDisruptionBudget"
check "replicas have a disruption budget" "kind: PodDisruptionBudget" --set replicas=2
check "no replicas are no mistake" "replicas: 0" --set replicas=0
check "the pod is not root" "runAsNonRoot: true"
check "the root file system is read-only" "readOnlyRootFilesystem: true"
check "a digest wins over the tag" "image: r/m@sha256:$(printf '%064d' 0)" --set image.repository=r/m --set image.digest="sha256:$(printf '%064d' 0)"
check "watched namespaces reach the operator" "--watch-namespaces=a,b" --set 'watchNamespaces={a,b}'
check "an edge address reaches the operator" "--edge-address=127.0.0.1:1" --set operator.edgeAddress=127.0.0.1:1
check "an authority is mounted" "--edge-ca=/etc/moorage/ca/edge.pem" --set operator.edgeCa=PEM
check "a master key file is mounted" "mountPath: /run/keys" --set masterKey.file=/run/keys/master --set masterKey.volume.csi.driver=x
check "a network policy can be had" "kind: NetworkPolicy" --set networkPolicy.enabled=true
check "a service monitor can be had" "kind: ServiceMonitor" --set serviceMonitor.enabled=true
check "keys in the clear are refused at admission" "kind: ValidatingAdmissionPolicyBinding"
check "policies carry the release's name" "policyName: moorage-moorage-system-literal-keys"
lacks "admission policies can be left out" "kind: ValidatingAdmissionPolicy" --set admissionPolicies.enabled=false
check "tenants may read the certificate" 'name: "system:authenticated"'
lacks "readers of the certificate can be left out" "moorage-sealing-certificate" --set 'sealingCertificate.readers=null'
refuses "a value that is not known" "replcas" --set replcas=2
refuses "negative replicas" "replicas" --set replicas=-1
refuses "an endpoint that is none" "hetznerEndpoint" --set operator.hetznerEndpoint=ftp://x
refuses "a master key file from nowhere" "masterKey.volume must say" --set masterKey.file=/run/keys/master
refuses "no service account at all" "serviceAccount.name is needed" --set serviceAccount.create=false

# Chart and base give the operator the same rules. kubectl writes both, so that only content counts.
rules() {
  "$MOORAGE_KUBECTL" kustomize "$1" | python3 -c '
import re, sys
documents = re.split(r"^---\n", sys.stdin.read(), flags=re.M)
for document in sorted(d for d in documents if re.search(r"^kind: (Cluster)?Role(Binding)?$", d, re.M)):
    print(re.sub(r"^ *(helm.sh/chart|app.kubernetes.io/managed-by):.*\n", "", document, flags=re.M))
'
}
mkdir "$scratch/chart"
render >"$scratch/chart/all.yaml"
printf 'resources: [all.yaml]\n' >"$scratch/chart/kustomization.yaml"
rules "$scratch/chart" >"$scratch/of-chart"
rules config/default >"$scratch/of-base"
[[ $(grep -c '^kind: ' "$scratch/of-chart") -ge 6 ]] || fail "the chart has fewer roles than it should"
if diff -u "$scratch/of-chart" "$scratch/of-base"; then pass; else fail "chart and Kustomize base differ in RBAC"; fi

# With watched namespaces there is no reading of Secrets outside of them.
render --set 'watchNamespaces={a}' --show-only templates/rbac.yaml >"$scratch/out"
if awk 'BEGIN { RS = "---" } /\nkind: ClusterRole\n/ && /secrets/ { found = 1 } END { exit !found }' "$scratch/out"; then
  fail "with watchNamespaces a ClusterRole still reads Secrets"
else pass; fi

"$MOORAGE_KUBECTL" kustomize config/samples >/dev/null && pass || fail "config/samples does not build"
# A template that kustomize can read is well-formed for every switch at once.
render --set replicas=3 --set networkPolicy.enabled=true --set serviceMonitor.enabled=true --set operator.edgeCa=PEM \
  --set 'watchNamespaces={a}' >"$scratch/chart/all.yaml"
"$MOORAGE_KUBECTL" kustomize "$scratch/chart" >/dev/null && pass || fail "the chart with everything on is not well-formed"

echo "chart: $passed checks passed"
exit $failed
