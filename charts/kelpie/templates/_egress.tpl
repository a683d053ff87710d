{{- /*
Where metrics go. backend.enabled alone decides whether anything leaves the
cluster; the site only says where to, if it does.
*/ -}}

{{- define "kelpie.sendsToDatadog" -}}
{{- if or (not .Values.backend.enabled) .Values.backend.alsoSendToDatadog -}}true{{- end -}}
{{- end -}}

{{- /* Datadog's intake for a copy; its documented name for dual shipping. */ -}}
{{- define "kelpie.datadogIntake" -}}
{{- default (printf "https://app.%s" (default "datadoghq.com" .Values.datadog.site)) .Values.datadog.dd_url -}}
{{- end -}}

{{- define "kelpie.intake.env" -}}
{{- if .Values.backend.enabled }}
- name: DD_DD_URL
  value: {{ include "kelpie.backend.url" . | quote }}
{{- else }}
- name: DD_SITE
  value: {{ default "datadoghq.com" .Values.datadog.site | quote }}
{{- with .Values.datadog.dd_url }}
- name: DD_DD_URL
  value: {{ . | quote }}
{{- end }}
{{- end }}
{{- end -}}

{{- /* DD_API_KEY must stand before these: the kubelet puts it into the JSON. */ -}}
{{- define "kelpie.agent.egress.env" -}}
{{- include "kelpie.intake.env" . }}
{{- if and .Values.backend.enabled .Values.backend.alsoSendToDatadog }}
- name: DD_ADDITIONAL_ENDPOINTS
  value: {{ printf "{%q:[\"$(DD_API_KEY)\"]}" (include "kelpie.datadogIntake" .) | quote }}
{{- end }}
{{- end -}}

{{- /* Where the cluster agent's own metrics go, and where it asks for those of others. */ -}}
{{- define "kelpie.clusterAgent.egress.env" -}}
{{- include "kelpie.intake.env" . }}
{{- if .Values.clusterAgent.metricsProvider.enabled }}
{{- $endpoint := .Values.clusterAgent.metricsProvider.endpoint -}}
{{- if .Values.backend.enabled -}}
{{- $endpoint = default (include "kelpie.backend.url" .) $endpoint -}}
{{- end -}}
{{- with $endpoint }}
- name: DD_EXTERNAL_METRICS_PROVIDER_ENDPOINT
  value: {{ . | quote }}
{{- end }}
{{- end }}
{{- end -}}
