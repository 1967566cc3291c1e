{{- define "meshbridge.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "meshbridge.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else if contains (include "meshbridge.name" .) .Release.Name }}
{{- .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "meshbridge.name" .) | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "meshbridge.selectorLabels" -}}
app.kubernetes.io/name: {{ include "meshbridge.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: {{ .Values.role }}
{{- end }}

{{- define "meshbridge.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{ include "meshbridge.selectorLabels" . }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "meshbridge.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "meshbridge.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- required "serviceAccount.name: say which account to use, or set serviceAccount.create" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "meshbridge.image" -}}
{{- $repository := required "image.repository: there is no public image; build one from deploy/docker and name it here" .Values.image.repository }}
{{- if .Values.image.digest }}
{{- printf "%s@%s" $repository .Values.image.digest }}
{{- else }}
{{- printf "%s:%s" $repository .Values.image.tag }}
{{- end }}
{{- end }}

{{- /* What the schema cannot say in words that help. */}}
{{- define "meshbridge.validate" -}}
{{- if eq .Values.role "standalone" }}
{{- if gt (int .Values.replicas) 1 }}
{{- fail "replicas: role standalone takes one: two bridges number their revisions differently, and APISIX would mistake one's for the other's" }}
{{- end }}
{{- if and .Values.etcd.insecure .Values.etcd.tls.secretName }}
{{- fail "etcd.insecure and etcd.tls.secretName exclude each other" }}
{{- end }}
{{- if not (or .Values.etcd.insecure .Values.etcd.tls.secretName) }}
{{- fail "etcd.tls.secretName: the etcd port serves private keys of gateways, so it needs a Secret with tls.crt, tls.key and ca.crt; etcd.insecure serves everybody without TLS" }}
{{- end }}
{{- end }}
{{- end }}
