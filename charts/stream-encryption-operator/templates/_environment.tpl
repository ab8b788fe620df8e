{{/* The environment of the operator's container: what the chart sets, and what the user adds. */}}

{{- define "stream-encryption-operator.ownEnvironment" -}}
- name: POD_NAME
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
- name: POD_NAMESPACE
  valueFrom:
    fieldRef:
      fieldPath: metadata.namespace
- name: LISTEN
  value: {{ printf "%s:%d" .Values.metrics.listen.address (int .Values.metrics.listen.port) | quote }}
- name: LEADER_ELECTION
  value: {{ .Values.leaderElection.enabled | quote }}
- name: LEASE_NAME
  value: {{ include "stream-encryption-operator.fullname" . }}
{{- with include "stream-encryption-operator.watchNamespaces" . }}
- name: WATCH_NAMESPACE
  value: {{ . | quote }}
{{- end }}
{{- with .Values.watchLabelSelector }}
- name: WATCH_LABEL_SELECTOR
  value: {{ . | quote }}
{{- end }}
{{- with .Values.aws.region }}
- name: AWS_REGION
  value: {{ . | quote }}
{{- end }}
{{- with .Values.aws.endpointUrl }}
- name: STREAM_ENCRYPTION_AWS_ENDPOINT_URL
  value: {{ . | quote }}
{{- /* For the STS that provides the operator's own credentials, for example by IRSA: the AWS SDK reads only this variable. */}}
- name: AWS_ENDPOINT_URL
  value: {{ . | quote }}
{{- end }}
{{- with .Values.aws.credentials }}
{{- if .secretName }}
- name: AWS_SHARED_CREDENTIALS_FILE
  value: {{ printf "/var/run/secrets/aws/%s" .secretKey | quote }}
- name: AWS_PROFILE
  value: {{ .profile | quote }}
{{- end }}
{{- end }}
- name: AWS_RATE_PERCENT
  value: {{ .Values.aws.ratePercent | int | quote }}
{{- with .Values.aws.requestLimits }}
- name: AWS_REQUEST_LIMITS
  value: {{ . | toJson | squote }}
{{- end }}
{{- if .Values.defaultPolicy.enabled }}
{{- if not (and .Values.defaultPolicy.streams .Values.defaultPolicy.keys) }}
{{- fail "defaultPolicy.streams and defaultPolicy.keys must not be empty with defaultPolicy.enabled: the operator would not start" }}
{{- end }}
{{- /* A selector that is left empty is absent from the values, and the operator requires it. `omit` returns a copy. */}}
{{- $policy := omit .Values.defaultPolicy "enabled" }}
{{- $_ := set $policy "namespaceSelector" ($policy.namespaceSelector | default dict) }}
- name: DEFAULT_POLICY
  value: {{ $policy | toJson | squote }}
{{- else }}
{{- /* Empty instead of absent, so that a release that adopts an installation by kubectl replaces the value. */}}
- name: DEFAULT_POLICY
  value: ""
{{- end }}
- name: DRIFT_INTERVAL_SECONDS
  value: {{ .Values.driftIntervalSeconds | int | quote }}
{{- with .Values.events.queueUrl }}
- name: EVENTS_QUEUE_URL
  value: {{ . | quote }}
- name: EVENTS_DRIFT_INTERVAL_SECONDS
  value: {{ $.Values.events.driftIntervalSeconds | int | quote }}
{{- end }}
- name: CONCURRENCY
  value: {{ .Values.concurrency | int | quote }}
- name: LOG
  value: {{ .Values.log.level | quote }}
- name: LOG_FORMAT
  value: {{ .Values.log.format }}
{{- end }}

{{/* The value of the chart that sets each variable, for the message below. */}}
{{- define "stream-encryption-operator.valuesOfEnvironment" -}}
LISTEN: metrics.listen.address or metrics.listen.port
LEADER_ELECTION: leaderElection.enabled
LEASE_NAME: fullnameOverride
WATCH_NAMESPACE: watchNamespaces
WATCH_LABEL_SELECTOR: watchLabelSelector
AWS_REGION: aws.region
STREAM_ENCRYPTION_AWS_ENDPOINT_URL: aws.endpointUrl
AWS_ENDPOINT_URL: aws.endpointUrl
AWS_SHARED_CREDENTIALS_FILE: aws.credentials.secretName or aws.credentials.secretKey
AWS_PROFILE: aws.credentials.profile
AWS_RATE_PERCENT: aws.ratePercent
AWS_REQUEST_LIMITS: aws.requestLimits
DEFAULT_POLICY: defaultPolicy
DRIFT_INTERVAL_SECONDS: driftIntervalSeconds
EVENTS_QUEUE_URL: events.queueUrl
EVENTS_DRIFT_INTERVAL_SECONDS: events.driftIntervalSeconds
CONCURRENCY: concurrency
LOG: log.level
LOG_FORMAT: log.format
{{- end }}

{{/* A server-side apply refuses a container with a variable twice. */}}
{{- define "stream-encryption-operator.environment" -}}
{{- $own := include "stream-encryption-operator.ownEnvironment" . }}
{{- $values := include "stream-encryption-operator.valuesOfEnvironment" . | fromYaml }}
{{- $names := list }}
{{- range $own | fromYamlArray }}
{{- $names = append $names .name }}
{{- end }}
{{- $taken := list }}
{{- $added := list }}
{{- range .Values.extraEnv }}
{{- if has .name $names }}
{{- $value := get $values .name }}
{{- $taken = append $taken (ternary (printf "%s (set %s)" .name $value) .name (ne $value "")) }}
{{- end }}
{{- if has .name $added }}
{{- fail (printf "extraEnv must not contain %s twice" .name) }}
{{- end }}
{{- $added = append $added .name }}
{{- end }}
{{- with $taken }}
{{- fail (printf "extraEnv must not contain variables that the chart sets: %s" (join ", " .)) }}
{{- end }}
{{- $own }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}
