{{- /*
kelpie.foreignKeys: dict values, prefix, leaves, sections. Prints, a line each,
the paths that are neither a key that Kelpie reads nor on the way to one.
*/ -}}
{{- define "kelpie.foreignKeys" -}}
{{- range $key, $value := .values -}}
{{- $path := ternary $key (printf "%s.%s" $.prefix $key) (eq $.prefix "") -}}
{{- if hasKey $.leaves $path -}}
{{- else if and (hasKey $.sections $path) (or (kindIs "map" $value) (kindIs "invalid" $value)) -}}
{{- include "kelpie.foreignKeys" (dict "values" (default dict $value) "prefix" $path "leaves" $.leaves "sections" $.sections) -}}
{{- else -}}
{{- printf "%s\n" $path -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "kelpie.foreignKeys.report" -}}
{{- $known := .Files.Get "files/keys.yaml" | fromYaml -}}
{{- $leaves := dict -}}
{{- $sections := dict -}}
{{- range $path := $known.supported -}}
{{- $_ := set $leaves $path true -}}
{{- $parts := splitList "." $path -}}
{{- range $i, $_ := $parts -}}
{{- $_ := set $sections (slice $parts 0 $i | join ".") true -}}
{{- end -}}
{{- end -}}
{{- /* Values is a named type; a copy is a plain map. */ -}}
{{- $values := dict -}}
{{- range $key, $value := .Values }}{{- $_ := set $values $key $value }}{{- end -}}
{{- $lines := include "kelpie.foreignKeys" (dict "values" $values "prefix" "" "leaves" $leaves "sections" $sections) -}}
{{- range splitList "\n" $lines }}
{{- if . }}
{{ printf "ignored: %s (%s)" . (default "Kelpie does not know it; a typing error?" (get $known.ignored .)) }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "kelpie.warnings" -}}
{{- $datadog := .Values.datadog }}
{{- $ns := .Release.Namespace }}
{{- if not (or $datadog.apiKey $datadog.apiKeyExistingSecret) }}
warning: no API key is given (datadog.apiKeyExistingSecret). The pods wait until this is done:
  kubectl create secret generic {{ include "kelpie.apiKeySecret" . }} --namespace {{ $ns }} --from-literal api-key=<key>
{{- end }}
{{- if not (or $datadog.appKey $datadog.appKeyExistingSecret) }}
{{- if or .Values.backend.enabled (and .Values.clusterAgent.enabled .Values.clusterAgent.metricsProvider.enabled) }}
warning: no application key is given (datadog.appKeyExistingSecret). The pods that make or answer queries wait until this is done:
  kubectl create secret generic {{ include "kelpie.appKeySecret" . }} --namespace {{ $ns }} --from-literal app-key=<key>
{{- end }}
{{- end }}
{{- if and $datadog.apiKey $datadog.apiKeyExistingSecret }}
warning: datadog.apiKey is not used, because datadog.apiKeyExistingSecret is set.
{{- end }}
{{- if and $datadog.appKey $datadog.appKeyExistingSecret }}
warning: datadog.appKey is not used, because datadog.appKeyExistingSecret is set.
{{- end }}
{{- if and $datadog.dd_url (not (include "kelpie.sendsToDatadog" .)) }}
warning: datadog.dd_url is not used, because backend.enabled keeps the metrics in the cluster.
{{- end }}
{{- if and .Values.backend.alsoSendToDatadog (not .Values.backend.enabled) }}
warning: backend.alsoSendToDatadog changes nothing, because backend.enabled is false and all metrics go to Datadog.
{{- end }}
{{- if and .Values.backend.enabled (not .Values.backend.persistence.enabled) }}
warning: backend.persistence.enabled is false. Metrics are lost when the backend's pod is.
{{- end }}
{{- if and .Values.clusterAgent.enabled (not .Values.clusterAgent.metricsProvider.enabled) }}
warning: clusterAgent.metricsProvider.enabled is false. HorizontalPodAutoscalers get no metrics.
{{- end }}
{{- if and .Values.clusterAgent.enabled (not (include "kelpie.clusterAgent.answersAgents" .)) }}
warning: clusterAgent.metricsProvider.service.type opens the cluster agent's Service to the outside, so node agents do not ask it. Their metrics lack kube_service and tags from labels of nodes and namespaces.
{{- end }}
{{- if and .Values.clusterAgent.token .Values.clusterAgent.tokenExistingSecret }}
warning: clusterAgent.token is not used, because clusterAgent.tokenExistingSecret is set.
{{- end }}
{{- if and .Values.clusterAgent.metricsProvider.enabled (not .Values.rbac.create) }}
warning: rbac.create is false. The roles of the cluster agent and the APIService v1beta1.external.metrics.k8s.io are yours to create.
{{- end }}
{{- if and .Values.clusterAgent.enabled .Values.clusterAgent.metricsProvider.enabled (lt (int .Values.clusterAgent.replicas) 2) }}
note: the cluster agent has one replica. With clusterAgent.replicas 2 autoscalers are served while one restarts.
{{- end }}
{{- end -}}
