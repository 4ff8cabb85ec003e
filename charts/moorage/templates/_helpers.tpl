{{- define "moorage.name" -}}
{{- if contains "moorage" .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}{{ else }}{{ printf "%s-moorage" .Release.Name | trunc 50 | trimSuffix "-" }}{{ end }}
{{- end }}

{{/* Cluster-scoped objects carry the namespace, so that two releases do not fight over them. */}}
{{- define "moorage.clusterName" -}}
{{- if eq .Release.Namespace (include "moorage.name" .) }}{{ .Release.Namespace }}{{ else }}{{ printf "%s-%s" (include "moorage.name" .) .Release.Namespace | trunc 63 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "moorage.selector" -}}
app.kubernetes.io/name: moorage
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "moorage.labels" -}}
{{ include "moorage.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "moorage.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}{{ default (include "moorage.name" .) .Values.serviceAccount.name }}{{ else }}{{ required "serviceAccount.name is needed when serviceAccount.create is false" .Values.serviceAccount.name }}{{ end }}
{{- end }}

{{- define "moorage.image" -}}
{{- if .Values.image.digest }}{{ .Values.image.repository }}@{{ .Values.image.digest }}{{ else }}{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}{{ end }}
{{- end }}

{{/* What is needed in each namespace with instances. */}}
{{- define "moorage.tenantRules" -}}
- apiGroups: [moorage.dev]
  resources: [openclawinstances]
  # patch: finalizer and annotations; the spec is the user's alone.
  verbs: [get, list, watch, patch]
- apiGroups: [moorage.dev]
  resources: [openclawinstances/status]
  verbs: [patch]
- apiGroups: [moorage.dev]
  resources: [openclawinstances/finalizers]
  # Owner references that block deletion, where the cluster enforces this.
  verbs: [update]
- apiGroups: [""]
  resources: [secrets]
  # Sealed values are read and deleted; the dashboard's Secret is created and kept up to date.
  verbs: [get, list, watch, create, patch, delete]
{{- end }}

{{- define "moorage.hasVolumes" -}}
{{- if or .Values.operator.edgeCa .Values.operator.cloudCa .Values.masterKey.file }}yes{{ end }}
{{- end }}
