{{/* Names. */}}
{{- define "autosp.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" }}
{{- end }}

{{/* At most 40 characters, so that what is appended stays below the 63 of a label. */}}
{{- define "autosp.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else if contains (include "autosp.name" .) .Release.Name }}
{{- .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "autosp.name" .) | trunc 40 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{/* Labels: autosp.selector (list ROOT COMPONENT) never changes; autosp.labels may. */}}
{{- define "autosp.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ include "autosp.name" $root }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{- define "autosp.labels" -}}
{{- $root := index . 0 -}}
{{ include "autosp.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- end }}

{{/* An image: (list ROOT NAME). */}}
{{- define "autosp.image" -}}
{{- $root := index . 0 -}}
{{- printf "%s/%s:%s" $root.Values.image.repository (index . 1) (default $root.Chart.AppVersion $root.Values.image.tag) }}
{{- end }}

{{- define "autosp.coordinatorAddress" -}}
{{- printf "%s-coordinator.%s.svc:%d" (include "autosp.fullname" .) .Release.Namespace (int .Values.coordinator.port) }}
{{- end }}

{{/* Nothing runs as root, gains rights, or writes to its image. */}}
{{- define "autosp.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: {{ .Values.security.runAsUser }}
runAsGroup: {{ .Values.security.runAsGroup }}
fsGroup: {{ .Values.security.fsGroup }}
# Else every start would walk over all files of a large volume.
fsGroupChangePolicy: OnRootMismatch
{{- with .Values.security.supplementalGroups }}
supplementalGroups: {{ toJson . }}
{{- end }}
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "autosp.securityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* Where a pod goes: (list ROOT VALUES), of the coordinator or of the agent. */}}
{{- define "autosp.scheduling" -}}
{{- $root := index . 0 -}}
{{- $values := index . 1 -}}
{{- with $root.Values.image.pullSecrets }}
imagePullSecrets:
{{- range . }}
  - name: {{ . }}
{{- end }}
{{- end }}
{{- with $values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $values.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* The shared folders with models and data: the coordinator reads archives when it plans, ranks
     read them and the data, and all see them under one path. */}}
{{- define "autosp.volumeMounts" -}}
{{- range .Values.volumes }}
- name: shared-{{ .name }}
  mountPath: {{ .mountPath }}
  readOnly: {{ .readOnly | default false }}
{{- end }}
{{- end }}

{{- define "autosp.volumes" -}}
{{- range .Values.volumes }}
- name: shared-{{ .name }}
  {{- if .hostPath }}
  hostPath: {path: {{ .hostPath }}, type: Directory}
  {{- else if .claim }}
  persistentVolumeClaim: {claimName: {{ .claim }}}
  {{- else }}
  nfs: {server: {{ .nfs.server }}, path: {{ .nfs.path }}, readOnly: {{ .readOnly | default false }}}
  {{- end }}
{{- end }}
{{- end }}

{{/* TLS: the options of all programs, the files that they name, and where those come from. A renewed
     secret is read again by the programs themselves, so nothing starts anew for it. */}}
{{- define "autosp.tlsArgs" -}}
{{- if .Values.tls.secret }}
- --tls-cert=/etc/autosp-tls/tls.crt
- --tls-key=/etc/autosp-tls/tls.key
- --tls-ca=/etc/autosp-tls/ca.crt
{{- end }}
{{- end }}

{{- define "autosp.tlsMount" -}}
{{- if .Values.tls.secret }}
- {name: tls, mountPath: /etc/autosp-tls, readOnly: true}
{{- end }}
{{- end }}

{{- define "autosp.tlsVolume" -}}
{{- if .Values.tls.secret }}
- {name: tls, secret: {secretName: {{ .Values.tls.secret }}, defaultMode: 0440}}
{{- end }}
{{- end }}

{{/* How the kubelet asks: (list ROOT PORT SERVICE). It has no certificate, so with TLS it only sees
     whether the port is open. */}}
{{- define "autosp.probe" -}}
{{- $root := index . 0 -}}
{{- if $root.Values.tls.secret -}}
tcpSocket: {port: {{ index . 1 }}}
{{- else if index . 2 -}}
grpc: {port: {{ index . 1 }}, service: {{ index . 2 }}}
{{- else -}}
grpc: {port: {{ index . 1 }}}
{{- end }}
{{- end }}

{{/* With mode gpu, the pod asks for one GPU for each device that it offers. */}}
{{- define "autosp.agentResources" -}}
{{- $resources := deepCopy .Values.agent.resources -}}
{{- if eq .Values.agent.mode "gpu" -}}
{{- $gpus := dict .Values.agent.gpuResource (int .Values.agent.devices) -}}
{{- $_ := set $resources "limits" (merge (default (dict) $resources.limits) $gpus) -}}
{{- $_ := set $resources "requests" (merge (default (dict) $resources.requests) $gpus) -}}
{{- end -}}
{{- toYaml $resources -}}
{{- end }}
