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
- name: KELPIE_KEY_SECRET_HINT
  value: {{ printf "%s/%s" .Release.Namespace (include "kelpie.appKeySecret" .) | quote }}
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
