{{- define "kelpie.backend.env" -}}
{{- include "kelpie.apiKey.env" . }}
{{ include "kelpie.appKey.env" . }}
- name: DD_LOG_LEVEL
  value: {{ include "kelpie.logLevel" .Values.datadog.logLevel | quote }}
- name: DD_HEALTH_PORT
  value: "8081"
- name: KELPIE_DATA_DIR
  value: /var/lib/kelpie
{{- with .Values.backend.retention.time }}
- name: KELPIE_RETENTION
  value: {{ . | quote }}
{{- end }}
{{- with .Values.backend.retention.bytes | int64 }}
- name: KELPIE_RETENTION_BYTES
  value: {{ . | quote }}
{{- end }}
{{- end -}}
