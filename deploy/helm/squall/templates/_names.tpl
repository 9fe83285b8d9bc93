{{/* Labels of every object. */}}
{{- define "squall.labels" -}}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version | replace "+" "_" }}
app.kubernetes.io/name: squall
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: squall
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{/* Labels that select the pods of a component: list of context and component. */}}
{{- define "squall.selector" -}}
{{- $ := index . 0 -}}
app.kubernetes.io/name: squall
app.kubernetes.io/instance: {{ $.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{- define "squall.image" -}}
{{- with .Values.image -}}
{{- if .registry }}{{ .registry }}/{{ end }}{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}
{{- end }}
{{- end }}

{{/* Name of an object that belongs to no namespace: several installations that act in one
namespace each may be in a cluster, so theirs carry the namespace. List of context and name. */}}
{{- define "squall.clusterName" -}}
{{- $ := index . 0 -}}
{{ index . 1 }}{{ if not $.Values.clusterScoped }}-{{ $.Release.Namespace }}{{ end }}
{{- end }}

{{/* Name of the webhook's Service, its Secret and its configurations. */}}
{{- define "squall.webhook" -}}
{{- include "squall.clusterName" (list . "squall-webhook") | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* Who the API server says that a component is: list of context and component. */}}
{{- define "squall.user" -}}
{{- $ := index . 0 -}}
system:serviceaccount:{{ $.Release.Namespace }}:squall-{{ index . 1 }}
{{- end }}

{{- define "squall.policy" -}}
targetNamespace: {{ .Values.targetNamespace | quote }}
{{- if .Values.policy.protectedNamespaces }}
protectedNamespaces:
{{- range .Values.policy.protectedNamespaces }}
  - {{ tpl . $ | quote }}
{{- end }}
{{- else }}
protectedNamespaces: []
{{- end }}
optInNamespaces: {{ .Values.policy.optInNamespaces }}
optInLabels: {{ .Values.policy.optInLabels | toJson }}
mostPercent: {{ .Values.policy.mostPercent }}
allowHostNetwork: {{ .Values.policy.allowHostNetwork }}
{{- end }}

{{/* Names of the kinds of experiments, as JSON: whatever is defined in files/crds for them. */}}
{{- define "squall.experiments" -}}
{{- $kinds := list -}}
{{- range $path, $_ := .Files.Glob "files/crds/chaos-mesh.org_*.yaml" -}}
{{- $names := ($.Files.Get $path | fromYaml).spec.names -}}
{{- $kinds = append $kinds (dict "plural" $names.plural "path" (lower $names.kind)) -}}
{{- end -}}
{{- dict "kinds" $kinds | toJson -}}
{{- end }}

{{/* What pods of restricted Pod Security must say of their containers. */}}
{{- define "squall.restricted" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{- define "squall.nobody" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{/* A probe by `squall-node health`: list of further words. */}}
{{- define "squall.health" -}}
exec:
  command: [squall-node, health, /run/squall/health.sock{{ range . }}, {{ . }}{{ end }}]
timeoutSeconds: 15
{{- end }}
