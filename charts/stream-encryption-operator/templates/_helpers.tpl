{{/* Names, labels and rules that more than one template uses. */}}

{{/* Helm deletes the defaults of a section that is left empty, as by `aws:` alone. A template that reads one of them would fail without a useful message. */}}
{{- define "stream-encryption-operator.checkSections" -}}
{{- range list "global" "image" "aws" "aws.credentials" "leaderElection" "defaultPolicy" "admissionPolicy" "events" "log" "crds" "serviceAccount" "rbac" "podSecurityContext" "securityContext" "livenessProbe" "readinessProbe" "podDisruptionBudget" "metrics" "metrics.listen" "metrics.service" "serviceMonitor" "prometheusRule" "grafanaDashboard" "kubeStateMetrics" "kubeStateMetrics.configMap" "networkPolicy" }}
{{- $section := $.Values }}
{{- range splitList "." . }}
{{- $section = get $section . }}
{{- end }}
{{- if not (kindIs "map" $section) }}
{{- fail (printf "%s is empty: set a value below it, or remove it, so that its defaults apply" .) }}
{{- end }}
{{- end }}
{{- end }}

{{- define "stream-encryption-operator.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* 52 letters, so that the longest suffix, -resources, still fits. */}}
{{- define "stream-encryption-operator.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride }}
{{- $fullname := printf "%s-%s" .Release.Name $name }}
{{- if .Values.fullnameOverride }}
{{- $fullname = .Values.fullnameOverride }}
{{- else if contains $name .Release.Name }}
{{- $fullname = .Release.Name }}
{{- end }}
{{- if not (regexMatch "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$" $fullname) }}
{{- fail (printf "the objects would be named %s: set fullnameOverride to a name of lower-case letters, digits and -" $fullname) }}
{{- end }}
{{- /* A Service requires the letter. YAML reads the others as other values than texts. */}}
{{- $isNoText := or (regexMatch "^([0-9]+(e[0-9]+)?|0[xob][0-9a-f]+)$" $fullname) (has $fullname (list "y" "n" "yes" "no" "on" "off" "true" "false" "null")) }}
{{- if or $isNoText (and .Values.metrics.service.enabled (not (regexMatch "^[a-z]" $fullname))) }}
{{- fail (printf "the objects would be named %s: set fullnameOverride to a name that begins with a letter and is no YAML keyword" $fullname) }}
{{- end }}
{{- $fullname | trunc 52 | trimSuffix "-" }}
{{- end }}

{{/* Where the operator runs, and its objects and ledgers are. */}}
{{- define "stream-encryption-operator.namespace" -}}
{{- default .Release.Namespace .Values.namespaceOverride }}
{{- end }}

{{/* These two never change: a Deployment's selector cannot. They are those of config/operator too, so that a release can take over what kubectl installed. */}}
{{- define "stream-encryption-operator.selectorLabels" -}}
app.kubernetes.io/name: {{ include "stream-encryption-operator.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{/* The label by which the ServiceMonitor selects the Service. Argo CD may set app.kubernetes.io/instance to the name of an Application. */}}
{{- define "stream-encryption-operator.scrapeLabel" -}}
streamencryption.dev/metrics-of: {{ include "stream-encryption-operator.fullname" . | quote }}
{{- end }}

{{/* The chart's own labels or annotations (YAML) with maps that users set. A user's value replaces the chart's, so each key occurs once: Flux refuses a mapping with a key twice. */}}
{{- define "stream-encryption-operator.merged" -}}
{{- $own := first . }}
{{- with rest . | compact }}
{{- $merged := $own | fromYaml }}
{{- range . }}
{{- $merged = mergeOverwrite $merged . }}
{{- end }}
{{- $own = toYaml $merged }}
{{- end }}
{{- $own }}
{{- end }}

{{- define "stream-encryption-operator.sharedLabels" -}}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: stream-encryption-operator
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "stream-encryption-operator.labels" -}}
{{- $labels := printf "%s\n%s" (include "stream-encryption-operator.selectorLabels" .) (include "stream-encryption-operator.sharedLabels" .) }}
{{- include "stream-encryption-operator.merged" (list $labels .Values.commonLabels) }}
{{- end }}

{{- define "stream-encryption-operator.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "stream-encryption-operator.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{/* As container runtimes do, this takes the part before the first slash for a registry if it has a dot or a colon, or is localhost. */}}
{{- define "stream-encryption-operator.repository" -}}
{{- with .Values.global.imageRegistry }}
{{- printf "%s/%s" . (regexReplaceAll "^([^/]*[.:][^/]*|localhost)/" $.Values.image.repository "") }}
{{- else }}
{{- .Values.image.repository }}
{{- end }}
{{- end }}

{{- define "stream-encryption-operator.image" -}}
{{- $repository := include "stream-encryption-operator.repository" . }}
{{- $tag := default .Chart.AppVersion .Values.image.tag }}
{{- with .Values.image.digest }}
{{- printf "%s@%s" $repository . }}
{{- else }}
{{- printf "%s:%s" $repository $tag }}
{{- end }}
{{- end }}

{{/* The chart's own pull secrets and those of the parent chart, each once. A parent chart may give names alone. */}}
{{- define "stream-encryption-operator.imagePullSecrets" -}}
{{- $names := list }}
{{- range concat (.Values.imagePullSecrets | default list) (.Values.global.imagePullSecrets | default list) }}
{{- if kindIs "string" . }}
{{- $names = append $names . }}
{{- else }}
{{- $names = append $names .name }}
{{- end }}
{{- end }}
{{- range $names | uniq }}
- name: {{ . | quote }}
{{- end }}
{{- end }}

{{/* The namespaces that are watched, separated by commas; empty means all. */}}
{{- define "stream-encryption-operator.watchNamespaces" -}}
{{- if eq .Values.installScope "namespace" }}
{{- .Values.watchNamespaces | default (list (include "stream-encryption-operator.namespace" .)) | join "," }}
{{- end }}
{{- end }}

{{/* What the operator may do wherever it watches: in all namespaces by a ClusterRole, or in some by a Role in each. config/rbac/cluster_role.yaml has the same rules, and why. */}}
{{- define "stream-encryption-operator.resourceRules" -}}
- apiGroups: [streamencryption.dev]
  resources: [streamencryptions]
  verbs: [get, list, watch]
{{- if not (include "stream-encryption-operator.watchNamespaces" .) }}
# Which namespaces may have which streams encrypted, and the labels by which policies select them.
- apiGroups: [streamencryption.dev]
  resources: [streamencryptionpolicies]
  verbs: [list, watch]
{{- if not .Values.watchLabelSelector }}
- apiGroups: [streamencryption.dev]
  resources: [streamencryptionpolicies/status]
  verbs: [patch]
{{- end }}
- apiGroups: [""]
  resources: [namespaces]
  verbs: [get, list, watch]
{{- end }}
# Only for the finalizer of `deletionPolicy: Disable`: it lies in the metadata, which has no subresource of its own to patch.
- apiGroups: [streamencryption.dev]
  resources: [streamencryptions]
  verbs: [patch]
- apiGroups: [streamencryption.dev]
  resources: [streamencryptions/status]
  verbs: [patch]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
# `key.objectRef`: the ARN of a key that ACK or Crossplane created.
- apiGroups: [kms.services.k8s.aws, kms.aws.m.upbound.io]
  resources: [keys]
  verbs: [get, list, watch]
{{- end }}

{{/* Not those of the operator's pods, or the Service would send requests to the pod of `helm test`. */}}
{{- define "stream-encryption-operator.testLabels" -}}
app.kubernetes.io/name: {{ printf "%s-test" (include "stream-encryption-operator.name" . | trunc 58) | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{/* The end of an alert's description: at most ten resources, by a query, if kube-state-metrics exports them. The context is a list of the chart's own one and the query. In the query, %[1]q is the cluster of the alert, and %[2]q its reason; without the label, an empty text. kube-state-metrics exports no labels of a resource, so no query can select the resources that match watchLabelSelector. */}}
{{- define "stream-encryption-operator.named" -}}
{{- $ofShards := ternary " of all shards" "" (not (empty (first .).Values.watchLabelSelector)) }}
{{- printf `{{ with query (printf %q (index $labels "cluster") (index $labels "reason")) }} Resources%s (at most 10): {{ range $index, $one := . }}{{ if $index }}, {{ end }}{{ $one.Labels.namespace }}/{{ $one.Labels.name }}{{ end }}.{{ end }}` (last .) $ofShards }}
{{- end }}
