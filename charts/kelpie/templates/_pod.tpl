{{- /* What the pods of all roles have in common. */ -}}

{{- define "kelpie.image" -}}
{{- with .Values.kelpie.image -}}
{{- if .digest -}}
{{- printf "%s@%s" .repository .digest -}}
{{- else -}}
{{- printf "%s:%s" .repository (default $.Chart.AppVersion .tag | toString) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "kelpie.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "kelpie.containerSecurityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
runAsUser: 65532
capabilities:
  drop: [ALL]
{{- end -}}

{{- /* kelpie.probe: dict path, port, overrides (timings of the user), defaults. */ -}}
{{- define "kelpie.probe" -}}
{{- $http := dict "httpGet" (dict "path" .path "port" "health") -}}
{{- mergeOverwrite $http (default dict .defaults) (default dict .overrides) | toYaml -}}
{{- end -}}

{{- /*
kelpie.env: dict base (YAML list), lists (list of env lists), dicts (list of maps).
One entry a name: a later one replaces an earlier one in its place, so that
$(DD_API_KEY) in a value after it goes on being expanded, and server-side apply
finds no duplicate.
*/ -}}
{{- define "kelpie.env" -}}
{{- $entries := fromYamlArray .base -}}
{{- range .lists }}{{- range . }}{{- $entries = append $entries . }}{{- end }}{{- end -}}
{{- range $map := .dicts -}}
{{- range $name := keys (default dict $map) | sortAlpha -}}
{{- $entries = append $entries (dict "name" $name "value" (get $map $name | toString)) -}}
{{- end -}}
{{- end -}}
{{- $last := dict -}}
{{- range $entries }}{{- $_ := set $last .name . }}{{- end -}}
{{- $seen := dict -}}
{{- $merged := list -}}
{{- range $entries -}}
{{- if not (hasKey $seen .name) -}}
{{- $_ := set $seen .name true -}}
{{- $merged = append $merged (get $last .name) -}}
{{- end -}}
{{- end -}}
{{- toYaml $merged -}}
{{- end -}}

{{- /* The keys, from Secrets only. */ -}}
{{- define "kelpie.apiKey.env" -}}
- name: DD_API_KEY
  valueFrom:
    secretKeyRef:
      name: {{ include "kelpie.apiKeySecret" . }}
      key: api-key
{{- end -}}

{{- define "kelpie.appKey.env" -}}
- name: DD_APP_KEY
  valueFrom:
    secretKeyRef:
      name: {{ include "kelpie.appKeySecret" . }}
      key: app-key
{{- end -}}

{{- define "kelpie.apiKeySecret" -}}
{{- default (include "kelpie.fullname" .) .Values.datadog.apiKeyExistingSecret -}}
{{- end -}}

{{- define "kelpie.appKeySecret" -}}
{{- default (printf "%s-appkey" (include "kelpie.fullname" .)) .Values.datadog.appKeyExistingSecret -}}
{{- end -}}

{{- /* Restarts the pods when a key that stands in the values changes. */ -}}
{{- define "kelpie.keys.checksum" -}}
{{- with .Values.datadog -}}
{{- $token := ternary "" $.Values.clusterAgent.token (not (empty $.Values.clusterAgent.tokenExistingSecret)) -}}
{{- if or (and .apiKey (not .apiKeyExistingSecret)) (and .appKey (not .appKeyExistingSecret)) $token -}}
checksum/keys: {{ printf "%s\n%s\n%s" .apiKey .appKey $token | sha256sum }}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* Datadog's levels, as the four that Kelpie has. */ -}}
{{- define "kelpie.logLevel" -}}
{{- $level := default "INFO" . | lower -}}
{{- get (dict "trace" "debug" "critical" "error" "off" "error") $level | default $level -}}
{{- end -}}
