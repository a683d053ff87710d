{{- define "kelpie.agent.env" -}}
{{- $statsd := .Values.datadog.dogstatsd -}}
{{- include "kelpie.apiKey.env" . }}
{{- include "kelpie.agent.egress.env" . }}
- name: DD_KUBERNETES_NODE_NAME
  valueFrom:
    fieldRef:
      fieldPath: spec.nodeName
- name: DD_KUBERNETES_KUBELET_HOST
  valueFrom:
    fieldRef:
      fieldPath: status.hostIP
{{- if ne (toString .Values.datadog.kubelet.tlsVerify) "" }}
- name: DD_KUBELET_TLS_VERIFY
  value: {{ .Values.datadog.kubelet.tlsVerify | quote }}
{{- end }}
{{- with include "kelpie.agent.kubeletCA" . }}
- name: DD_KUBELET_CLIENT_CA
  value: {{ . | quote }}
{{- end }}
- name: KUBERNETES
  value: "yes"
- name: DD_LOG_LEVEL
  value: {{ include "kelpie.logLevel" (default .Values.datadog.logLevel .Values.agents.containers.agent.logLevel) | quote }}
- name: DD_HEALTH_PORT
  value: {{ .Values.agents.containers.agent.healthPort | quote }}
{{- with .Values.datadog.clusterName }}
- name: DD_CLUSTER_NAME
  value: {{ . | quote }}
{{- end }}
{{- with .Values.datadog.tags }}
- name: DD_TAGS
  value: {{ join " " . | quote }}
{{- end }}
- name: DD_CLUSTER_AGENT_ENABLED
  value: {{ ternary "true" "false" (include "kelpie.clusterAgent.answersAgents" . | eq "true") | quote }}
{{- if include "kelpie.clusterAgent.answersAgents" . }}
- name: DD_CLUSTER_AGENT_URL
  value: {{ printf "https://%s.%s.svc:5005" (include "kelpie.clusterAgent.name" .) .Release.Namespace | quote }}
{{ include "kelpie.clusterAgent.token.env" . }}
{{- end }}
{{- with .Values.datadog.checksCardinality }}
- name: DD_CHECKS_TAG_CARDINALITY
  value: {{ . | quote }}
{{- end }}
{{- range $key, $name := dict
  "podLabelsAsTags" "DD_KUBERNETES_POD_LABELS_AS_TAGS"
  "podAnnotationsAsTags" "DD_KUBERNETES_POD_ANNOTATIONS_AS_TAGS"
  "namespaceLabelsAsTags" "DD_KUBERNETES_NAMESPACE_LABELS_AS_TAGS"
  "nodeLabelsAsTags" "DD_KUBERNETES_NODE_LABELS_AS_TAGS"
  "kubernetesResourcesLabelsAsTags" "DD_KUBERNETES_RESOURCES_LABELS_AS_TAGS" }}
{{- with index $.Values.datadog $key }}
- name: {{ $name }}
  value: {{ toJson . | quote }}
{{- end }}
{{- end }}
# What intakes have not taken waits here, over restarts of the container.
- name: DD_RUN_PATH
  value: /var/run/kelpie-agent
- name: DD_DOGSTATSD_PORT
  value: {{ $statsd.port | quote }}
- name: DD_DOGSTATSD_NON_LOCAL_TRAFFIC
  value: {{ $statsd.nonLocalTraffic | quote }}
- name: DD_DOGSTATSD_SOCKET
  value: {{ ternary $statsd.socketPath "" $statsd.useSocketVolume | quote }}
{{- with $statsd.tagCardinality }}
- name: DD_DOGSTATSD_TAG_CARDINALITY
  value: {{ . | quote }}
{{- end }}
{{- with $statsd.tags }}
- name: DD_DOGSTATSD_TAGS
  value: {{ join " " . | quote }}
{{- end }}
{{- if $statsd.originDetection }}
- name: DD_DOGSTATSD_ORIGIN_DETECTION
  value: "true"
- name: DD_DOGSTATSD_ORIGIN_DETECTION_CLIENT
  value: "true"
{{- end }}
{{- if .Values.datadog.originDetectionUnified.enabled }}
- name: DD_ORIGIN_DETECTION_UNIFIED
  value: "true"
{{- end }}
{{- end -}}

{{- define "kelpie.agent.kubeletCA" -}}
{{- with .Values.datadog.kubelet -}}
{{- .agentCAPath | default (ternary "/var/run/host-kubelet-ca.crt" "" (ne .hostCAPath "")) -}}
{{- end -}}
{{- end -}}

{{- define "kelpie.agent.mounts" -}}
{{- if .Values.datadog.kubelet.hostCAPath }}
- name: kubelet-ca
  mountPath: {{ include "kelpie.agent.kubeletCA" . }}
  readOnly: true
{{- end }}
{{- if .Values.datadog.dogstatsd.useSocketVolume }}
- name: dsdsocket
  mountPath: {{ dir .Values.datadog.dogstatsd.socketPath }}
{{- end }}
- name: run
  mountPath: /var/run/kelpie-agent
{{- if .Values.datadog.confd }}
- name: confd
  mountPath: /etc/datadog-agent/conf.d
  readOnly: true
{{- end }}
{{- with .Values.agents.volumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "kelpie.agent.volumes" -}}
{{- with .Values.datadog.kubelet.hostCAPath }}
- name: kubelet-ca
  hostPath:
    path: {{ . }}
    type: File
{{- end }}
{{- if .Values.datadog.dogstatsd.useSocketVolume }}
- name: dsdsocket
  hostPath:
    path: {{ .Values.datadog.dogstatsd.hostSocketPath }}
    type: DirectoryOrCreate
{{- end }}
- name: run
  emptyDir: {}
{{- if .Values.datadog.confd }}
- name: confd
  configMap:
    name: {{ include "kelpie.fullname" . }}-confd
{{- end }}
{{- with .Values.agents.volumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}
