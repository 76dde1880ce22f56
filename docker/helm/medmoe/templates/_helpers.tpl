{{- define "medmoe.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 53 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 53 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "medmoe.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "medmoe.labels" -}}
{{ include "medmoe.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{- define "medmoe.image" -}}
{{- with .Values.image }}{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag }}{{ end }}{{ end }}
{{- end }}

{{- define "medmoe.keySecret" -}}
{{- if .Values.auth.existingSecret }}{{ .Values.auth.existingSecret }}{{ else if .Values.auth.keys }}{{ include "medmoe.name" . }}-keys{{ end }}
{{- end }}

{{- define "medmoe.drainSeconds" -}}
{{ addf (dig "drain_lag_seconds" 0 .Values.settings) (dig "drain_seconds" 30 .Values.settings) }}
{{- end }}

{{- define "medmoe.graceSeconds" -}}
{{- if kindIs "invalid" .Values.terminationGracePeriodSeconds }}{{ add .Values.preStopSeconds (ceil (include "medmoe.drainSeconds" . | float64)) 30 }}{{ else }}{{ .Values.terminationGracePeriodSeconds | int }}{{ end }}
{{- end }}

{{- define "medmoe.leastReplicas" -}}
{{ if eq .Values.autoscaling.mode "none" }}{{ .Values.replicas | int }}{{ else }}{{ .Values.autoscaling.minReplicas | int }}{{ end }}
{{- end }}

{{- /* What a probe asks, "ready" or "live". The kubelet verifies no certificate, and has none of its own. */}}
{{- define "medmoe.probe" -}}
{{- $values := (index . 0).Values }}
{{- if $values.tls.clientCertificates -}}
exec: {command: [python3, -m, medmoe.server.healthcheck, {{ index . 1 }}]}
{{- else if $values.tls.secret -}}
httpGet: {path: /health/{{ index . 1 }}, port: http, scheme: HTTPS}
{{- else -}}
httpGet: {path: /health/{{ index . 1 }}, port: http}
{{- end }}
{{- end }}
