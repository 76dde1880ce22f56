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

{{- /* The command of a batch as a shell reads it. */}}
{{- define "medmoe.batchCommand" -}}
/opt/medmoe/bin/python -m medmoe.model.cli batch --ray{{ range .arguments }} '{{ . | toString | replace "'" "'\\''" }}'{{ end }}
{{- end }}

{{- /* A pod of Ray: root, labels, resources, and the number of gpus. */}}
{{- define "medmoe.rayPod" -}}
{{- $values := .root.Values }}
metadata:
  labels: {{- toYaml .labels | nindent 4 }}
spec:
  automountServiceAccountToken: false
  enableServiceLinks: false
  securityContext:
    runAsNonRoot: true
    runAsUser: 10001
    runAsGroup: 10001
    fsGroup: 10001
    fsGroupChangePolicy: OnRootMismatch
    seccompProfile: {type: RuntimeDefault}
  {{- with $values.image.pullSecrets }}
  imagePullSecrets: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $values.nodeSelector }}
  nodeSelector: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $values.tolerations }}
  tolerations: {{- toYaml . | nindent 4 }}
  {{- end }}
  containers:
    - name: ray
      image: {{ include "medmoe.image" .root | quote }}
      imagePullPolicy: {{ $values.image.pullPolicy }}
      securityContext:
        allowPrivilegeEscalation: false
        readOnlyRootFilesystem: true
        capabilities: {drop: [ALL]}
      env:
        - {name: RAY_USAGE_STATS_ENABLED, value: "0"}
        {{- if $values.model.existingClaim }}
        - {name: MEDMOE_MODEL, value: /model}
        {{- end }}
        {{- if $values.model.publicKeySecret }}
        - {name: MEDMOE_MODEL_PUBLIC_KEY, value: /run/medmoe-model-key/key.pub}
        {{- end }}
        {{- range $name, $value := $values.settings }}
        - {name: MEDMOE_{{ $name | upper }}, value: {{ include "medmoe.setting" $value | quote }}}
        {{- end }}
      # The image has no wget, which KubeRay's own probes call.
      {{- range list "liveness" "readiness" }}
      {{ . }}Probe:
        httpGet: {path: /api/local_raylet_healthz, port: 52365}
        initialDelaySeconds: 30
        periodSeconds: 10
        timeoutSeconds: 5
        failureThreshold: 12
      {{- end }}
      resources:
        requests: {{- toYaml .resources.requests | nindent 10 }}
        limits:
          {{- toYaml .resources.limits | nindent 10 }}
          {{- if gt (int .gpus) 0 }}
          {{ $values.gpu.resource }}: {{ .gpus }}
          {{- end }}
      volumeMounts:
        - {name: tmp, mountPath: /tmp}
        - {name: cache, mountPath: /var/cache/medmoe}
        - {name: shared-memory, mountPath: /dev/shm}
        - {name: data, mountPath: /data}
        {{- if $values.model.existingClaim }}
        - name: model
          mountPath: /model
          readOnly: true
          {{- with $values.model.subPath }}
          subPath: {{ . }}
          {{- end }}
        {{- end }}
        {{- if $values.model.publicKeySecret }}
        - {name: model-key, mountPath: /run/medmoe-model-key, readOnly: true}
        {{- end }}
  volumes:
    - {name: tmp, emptyDir: {}}
    - {name: cache, emptyDir: {}}
    - name: shared-memory
      emptyDir: {medium: Memory, sizeLimit: {{ $values.sharedMemory }}}
    - name: data
      persistentVolumeClaim: {claimName: {{ $values.batch.existingClaim }}}
    {{- if $values.model.existingClaim }}
    - name: model
      persistentVolumeClaim: {claimName: {{ $values.model.existingClaim }}, readOnly: true}
    {{- end }}
    {{- if $values.model.publicKeySecret }}
    - name: model-key
      secret: {secretName: {{ $values.model.publicKeySecret }}, items: [{key: key.pub, path: key.pub}], defaultMode: 0440}
    {{- end }}
{{- end }}

{{- /* A setting as text; a large number in YAML is a float here, and would be written with an exponent. */}}
{{- define "medmoe.setting" -}}
{{- if and (kindIs "float64" .) (eq . (floor .)) }}{{ printf "%.0f" . }}{{ else }}{{ . | toString }}{{ end }}
{{- end }}
