{{- /* Names and labels. The rules are in the chart's README, "Names". */ -}}

{{- define "kelpie.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default "datadog" .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 63 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* "datadog-agent" and "datadog" both give "datadog-cluster-agent". */ -}}
{{- define "kelpie.clusterAgent.name" -}}
{{- printf "%s-cluster-agent" (include "kelpie.fullname" . | trimSuffix "-agent" | trunc 49 | trimSuffix "-") -}}
{{- end -}}

{{- /* A StatefulSet's pods carry its name and a hash in a label of 63 characters. */ -}}
{{- define "kelpie.backend.name" -}}
{{- printf "%s-backend" (include "kelpie.fullname" . | trunc 44 | trimSuffix "-") -}}
{{- end -}}

{{- define "kelpie.backend.url" -}}
{{- printf "http://%s.%s.svc:8080" (include "kelpie.backend.name" .) .Release.Namespace -}}
{{- end -}}

{{- define "kelpie.kubeVersion" -}}
{{- default .Capabilities.KubeVersion.Version .Values.kubeVersionOverride -}}
{{- end -}}

{{- /*
kelpie.serviceAccount: dict root, role (agents|clusterAgent|backend), default.
The name that the role's pods use.
*/ -}}
{{- define "kelpie.serviceAccount" -}}
{{- $account := index .root.Values.serviceAccounts .role -}}
{{- $rbac := default dict (index .root.Values .role).rbac -}}
{{- if $account.name -}}
{{- $account.name -}}
{{- else if include "kelpie.serviceAccount.create" . -}}
{{- .default -}}
{{- else -}}
{{- default "default" $rbac.serviceAccountName -}}
{{- end -}}
{{- end -}}

{{- define "kelpie.serviceAccount.create" -}}
{{- $account := index .root.Values.serviceAccounts .role -}}
{{- $rbac := default dict (index .root.Values .role).rbac -}}
{{- if and $account.create (dig "create" true $rbac) -}}true{{- end -}}
{{- end -}}

{{- /* kelpie.labels: dict root, component. Labels of an object, never of a selector. */ -}}
{{- define "kelpie.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
app.kubernetes.io/name: kelpie
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
{{- with .component }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- /*
kelpie.podLabels: dict root, component, app, extra. Without the chart's version,
so that an upgrade that changes nothing else restarts nothing.
*/ -}}
{{- define "kelpie.podLabels" -}}
{{- $own := dict
  "app" .app
  "app.kubernetes.io/name" "kelpie"
  "app.kubernetes.io/instance" .root.Release.Name
  "app.kubernetes.io/component" .component
  "admission.datadoghq.com/enabled" "false" -}}
{{- merge $own (default dict .extra) .root.Values.commonLabels | toYaml -}}
{{- end -}}
