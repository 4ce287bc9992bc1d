{{/* Rules between values, which a schema cannot explain. Each says value, rule and remedy. */}}
{{- define "autosp.validate" -}}
{{- $v := .Values -}}
{{- if gt (int $v.coordinator.replicas) 1 -}}
{{- fail (printf "coordinator.replicas is %d; the store is SQLite, which one process owns; keep it at 1" (int $v.coordinator.replicas)) -}}
{{- end -}}
{{- if eq (int $v.agent.port) (int $v.agent.metricsPort) -}}
{{- fail (printf "agent.port and agent.metricsPort are both %d; give each its own" (int $v.agent.port)) -}}
{{- end -}}
{{- if eq (int $v.coordinator.port) (int $v.coordinator.metricsPort) -}}
{{- fail (printf "coordinator.port and coordinator.metricsPort are both %d; give each its own" (int $v.coordinator.port)) -}}
{{- end -}}
{{- range $group := list "limits" "requests" -}}
{{- if hasKey (default (dict) (index $v.agent.resources $group)) $v.agent.gpuResource -}}
{{- fail (printf "agent.resources.%s names %s, which agent.devices sets with agent.mode gpu; remove it there" $group $v.agent.gpuResource) -}}
{{- end -}}
{{- end -}}
{{- if and (eq $v.agent.mode "cpu") $v.agent.runtimeClassName -}}
{{- fail (printf "agent.runtimeClassName is %s with agent.mode cpu, where it would have no effect on devices; set agent.mode to gpu or leave it empty" $v.agent.runtimeClassName) -}}
{{- end -}}
{{- if and $v.monitoring.serviceMonitor.enabled $v.networkPolicy.enabled (not $v.networkPolicy.monitoring) -}}
{{- fail "monitoring.serviceMonitor.enabled is true and networkPolicy.monitoring is empty, so Prometheus could not reach the metrics; list its pods there, or set networkPolicy.enabled to false" -}}
{{- end -}}
{{- if and (eq $v.tls.clients "any") (not $v.tls.secret) -}}
{{- fail "tls.clients is any and tls.secret is empty, so there is no TLS to be let in by; name the secret, or leave tls.clients out" -}}
{{- end -}}
{{- include "autosp.validateVolumes" . -}}
{{- end }}

{{- define "autosp.validateVolumes" -}}
{{- $names := dict -}}
{{- $paths := dict -}}
{{- range .Values.volumes -}}
{{- $sources := list -}}
{{- if .hostPath }}{{ $sources = append $sources "hostPath" }}{{ end -}}
{{- if .claim }}{{ $sources = append $sources "claim" }}{{ end -}}
{{- if .nfs }}{{ $sources = append $sources "nfs" }}{{ end -}}
{{- if ne (len $sources) 1 -}}
{{- fail (printf "volumes: %s has %s; give exactly one of hostPath, claim and nfs" .name (default "no source" (join " and " $sources))) -}}
{{- end -}}
{{- if hasKey $names .name -}}
{{- fail (printf "volumes: %s is listed twice; names are unique" .name) -}}
{{- end -}}
{{- if hasKey $paths .mountPath -}}
{{- fail (printf "volumes: %s and %s are both mounted at %s; give each its own mountPath" (index $paths .mountPath) .name .mountPath) -}}
{{- end -}}
{{- if regexMatch "^/(var/lib/autosp|tmp|dev|etc|usr|proc|sys)(/|$)" .mountPath -}}
{{- fail (printf "volumes: %s is mounted at %s, where the pods keep their own files; choose another mountPath" .name .mountPath) -}}
{{- end -}}
{{- $_ := set $names .name true -}}
{{- $_ := set $paths .mountPath .name -}}
{{- end -}}
{{- end }}
