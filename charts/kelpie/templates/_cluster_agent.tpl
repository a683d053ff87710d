{{- /* Where the cluster agent keeps its certificate authority and its lock. */ -}}
{{- define "kelpie.clusterAgent.tlsSecret" -}}
{{- printf "%s-tls" (include "kelpie.clusterAgent.name" .) -}}
{{- end -}}

{{- define "kelpie.clusterAgent.lease" -}}
{{- printf "%s-leader-election" (include "kelpie.fullname" .) -}}
{{- end -}}

{{- /* Holds the token of node agents and cluster agent; its name is that of Datadog's chart. */ -}}
{{- define "kelpie.clusterAgent.tokenSecret" -}}
{{- default (include "kelpie.clusterAgent.name" .) .Values.clusterAgent.tokenExistingSecret -}}
{{- end -}}

{{- define "kelpie.clusterAgent.token.env" -}}
- name: DD_CLUSTER_AGENT_AUTH_TOKEN
  valueFrom:
    secretKeyRef:
      name: {{ include "kelpie.clusterAgent.tokenSecret" . }}
      key: token
{{- end -}}

{{- /*
Whether node agents can ask the cluster agent. Not where its Service, which all
of its ports share, is open to the outside of the cluster.
*/ -}}
{{- define "kelpie.clusterAgent.answersAgents" -}}
{{- with .Values.clusterAgent -}}
{{- if and .enabled (or (not .metricsProvider.enabled) (eq .metricsProvider.service.type "ClusterIP")) -}}true{{- end -}}
{{- end -}}
{{- end -}}

{{- /* Whether the cluster agent is the front door of KEDA's metrics server. */ -}}
{{- define "kelpie.clusterAgent.keda" -}}
{{- with .Values.clusterAgent.metricsProvider -}}
{{- if and .enabled .keda.enabled -}}true{{- end -}}
{{- end -}}
{{- end -}}

{{- define "kelpie.clusterAgent.rbac" -}}
{{- if and .Values.clusterAgent.enabled .Values.rbac.create .Values.clusterAgent.rbac.create -}}true{{- end -}}
{{- end -}}

{{- define "kelpie.clusterAgent.env" -}}
{{- $provider := .Values.clusterAgent.metricsProvider -}}
{{- include "kelpie.apiKey.env" . }}
{{- if $provider.enabled }}
{{ include "kelpie.appKey.env" . }}
{{- end }}
- name: DD_POD_NAME
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
- name: DD_POD_NAMESPACE
  valueFrom:
    fieldRef:
      fieldPath: metadata.namespace
- name: DD_KUBE_RESOURCES_NAMESPACE
  value: {{ .Release.Namespace | quote }}
- name: KUBERNETES
  value: "yes"
- name: DD_LOG_LEVEL
  value: {{ include "kelpie.logLevel" .Values.datadog.logLevel | quote }}
- name: DD_HEALTH_PORT
  value: {{ .Values.clusterAgent.healthPort | quote }}
{{- with .Values.datadog.clusterName }}
- name: DD_CLUSTER_NAME
  value: {{ . | quote }}
{{- end }}
- name: DD_CLUSTER_AGENT_KUBERNETES_SERVICE_NAME
  value: {{ include "kelpie.clusterAgent.name" . | quote }}
{{- with .Values.datadog.tags }}
- name: DD_TAGS
  value: {{ join " " . | quote }}
{{- end }}
{{- if include "kelpie.clusterAgent.answersAgents" . }}
- name: DD_CLUSTER_AGENT_CMD_PORT
  value: "5005"
{{ include "kelpie.clusterAgent.token.env" . }}
{{- end }}
- name: DD_KUBE_STATE_METRICS_CORE_ENABLED
  value: {{ .Values.datadog.kubeStateMetricsCore.enabled | quote }}
{{- include "kelpie.clusterAgent.egress.env" . }}
- name: DD_LEADER_ELECTION
  value: {{ .Values.datadog.leaderElection | quote }}
- name: DD_LEADER_LEASE_NAME
  value: {{ include "kelpie.clusterAgent.lease" . | quote }}
{{- with .Values.datadog.leaderLeaseDuration }}
- name: DD_LEADER_LEASE_DURATION
  value: {{ . | toString | quote }}
{{- end }}
- name: DD_EXTERNAL_METRICS_PROVIDER_ENABLED
  value: {{ $provider.enabled | quote }}
{{- if $provider.enabled }}
- name: DD_EXTERNAL_METRICS_PROVIDER_PORT
  value: {{ $provider.service.port | quote }}
- name: DD_EXTERNAL_METRICS_PROVIDER_USE_DATADOGMETRIC_CRD
  value: {{ $provider.useDatadogMetrics | quote }}
- name: DD_EXTERNAL_METRICS_PROVIDER_WPA_CONTROLLER
  value: {{ $provider.wpaController | quote }}
- name: DD_EXTERNAL_METRICS_AGGREGATOR
  value: {{ $provider.aggregator | quote }}
{{- include "kelpie.clusterAgent.sources.env" . }}
{{- with .Values.clusterAgent.policy }}
{{- if or .namespaces (eq (default "open" .mode) "namespaced") }}
- name: KELPIE_POLICY
  value: {{ toJson . | quote }}
{{- end }}
{{- end }}
- name: KELPIE_APISERVICE_SERVICE
  value: {{ include "kelpie.clusterAgent.name" . | quote }}
- name: KELPIE_TLS_SECRET
  value: {{ include "kelpie.clusterAgent.tlsSecret" . | quote }}
{{- if $provider.certManager.enabled }}
- name: KELPIE_TLS_CERT_MANAGER
  value: "true"
{{- end }}
- name: KELPIE_KEY_SECRET_HINT
  value: {{ printf "%s/%s" .Release.Namespace (include "kelpie.appKeySecret" .) | quote }}
{{- if include "kelpie.clusterAgent.keda" . }}
- name: KELPIE_KEDA_URL
  value: {{ printf "https://%s.%s.svc:%v" $provider.keda.service $provider.keda.namespace $provider.keda.port | quote }}
- name: KELPIE_KEDA_CA_FILE
  value: /etc/kelpie/keda/ca.crt
{{- end }}
{{- end }}
{{- end -}}

{{- /* Where values come from beside the query API of the other settings. */ -}}
{{- define "kelpie.clusterAgent.sources.env" -}}
{{- $provider := .Values.clusterAgent.metricsProvider -}}
{{- with $provider.source }}
- name: KELPIE_SOURCE
  value: {{ . | quote }}
{{- end }}
{{- with $provider.datadog }}
{{- $secret := .existingSecret -}}
{{- if $secret }}
{{- range $name, $key := dict "KELPIE_SOURCE_DATADOG_API_KEY" "api-key" "KELPIE_SOURCE_DATADOG_APP_KEY" "app-key" }}
- name: {{ $name }}
  valueFrom:
    secretKeyRef:
      name: {{ $secret }}
      key: {{ $key }}
{{- end }}
- name: KELPIE_SOURCE_DATADOG_ENDPOINT
  value: {{ default (printf "https://api.%s" (default "datadoghq.com" $.Values.datadog.site)) .endpoint | quote }}
{{- end }}
{{- end }}
{{- with $provider.shadow }}
{{- if .source }}
- name: KELPIE_SHADOW_SOURCE
  value: {{ .source | quote }}
{{- range $name, $value := dict "KELPIE_SHADOW_TOLERANCE" .tolerance "KELPIE_SHADOW_ABSOLUTE_TOLERANCE" .absoluteTolerance }}
{{- if ne (toString $value) "" }}
- name: {{ $name }}
  value: {{ $value | toString | quote }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- with $provider.prometheus }}
{{- if .url }}
{{- $secret := .existingSecret }}
- name: KELPIE_PROMETHEUS_URL
  value: {{ .url | quote }}
{{- range $name, $value := dict "KELPIE_PROMETHEUS_TENANT" .tenant "KELPIE_PROMETHEUS_CA_FILE" .caFile "KELPIE_PROMETHEUS_INTERVAL" .interval }}
{{- with $value }}
- name: {{ $name }}
  value: {{ . | toString | quote }}
{{- end }}
{{- end }}
{{- if $secret }}
{{- range $name, $key := dict "KELPIE_PROMETHEUS_BEARER_TOKEN" "token" "KELPIE_PROMETHEUS_USERNAME" "username" "KELPIE_PROMETHEUS_PASSWORD" "password" }}
- name: {{ $name }}
  valueFrom:
    secretKeyRef:
      name: {{ $secret }}
      key: {{ $key }}
      optional: true
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{- /* Replicas on different nodes where the scheduler can. */ -}}
{{- define "kelpie.clusterAgent.affinity" -}}
podAntiAffinity:
  preferredDuringSchedulingIgnoredDuringExecution:
    - weight: 50
      podAffinityTerm:
        topologyKey: kubernetes.io/hostname
        labelSelector:
          matchLabels:
            app: {{ include "kelpie.clusterAgent.name" . }}
{{- end -}}
