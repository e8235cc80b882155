{{- /* What is made is called so. Releases may have dots in their names, and begin with a digit; Services may not. */}}
{{- define "dormouse.fullname" -}}
{{- $release := .Release.Name | replace "." "-" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else if regexMatch "^[0-9]" $release -}}
{{- printf "dormouse-%s" ($release | trunc 31 | trimSuffix "-") -}}
{{- else if contains "dormouse" $release -}}
{{- $release | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-dormouse" ($release | trunc 31 | trimSuffix "-") -}}
{{- end -}}
{{- end }}

{{- define "dormouse.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{ include "dormouse.release" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "dormouse.release" -}}
app.kubernetes.io/name: dormouse
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end }}

{{- /* What selects the activators' pods. They count as each other's peers by it, so no other pod may have all of it. */}}
{{- define "dormouse.selector" -}}
{{ include "dormouse.release" . }}
app.kubernetes.io/component: activator
{{- end }}

{{- /* A pod that ends by itself has no use for a service mesh's proxy, which would not end. */}}
{{- define "dormouse.meshless.labels" -}}
sidecar.istio.io/inject: "false"
{{- end }}

{{- define "dormouse.meshless.annotations" -}}
sidecar.istio.io/inject: "false"
linkerd.io/inject: disabled
{{- end }}

{{- define "dormouse.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (ternary (include "dormouse.fullname" .) "default" .Values.serviceAccount.create) -}}
{{- end }}

{{- /* The Service and the Secret of the control port, and the name that its certificate is for. */}}
{{- define "dormouse.control" -}}
{{- printf "%s-control" (include "dormouse.fullname" .) -}}
{{- end }}

{{- define "dormouse.control.host" -}}
{{- printf "%s.%s.svc" (include "dormouse.control" .) .Release.Namespace -}}
{{- end }}

{{- /* The Secret that somebody else fills; "": the activators do. */}}
{{- define "dormouse.control.mounted" -}}
{{- if eq .Values.control.certificate "certManager" -}}
{{- printf "%s-tls" (include "dormouse.control" .) -}}
{{- else if ne .Values.control.certificate "generated" -}}
{{- .Values.control.certificate -}}
{{- end -}}
{{- end }}

{{- define "dormouse.image" -}}
{{- printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) -}}
{{- end }}

{{- /* What every pod of the chart may do to its node: nothing. The image's user is a number that is not root's. */}}
{{- define "dormouse.podSecurity" -}}
runAsNonRoot: true
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "dormouse.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{- /* The seconds, rounded up, of a duration as Go writes it: 1m30s is 90. */}}
{{- define "dormouse.seconds" -}}
{{- $units := dict "h" 3600.0 "m" 60.0 "s" 1.0 "ms" 0.001 -}}
{{- $sum := 0.0 -}}
{{- range regexFindAll "[0-9.]+(ms|s|m|h)" . -1 -}}
{{- $number := regexFind "[0-9.]+" . -}}
{{- $sum = addf $sum (mulf (float64 $number) (get $units (trimPrefix $number .))) -}}
{{- end -}}
{{- ceil $sum | int64 -}}
{{- end }}

{{- /* The seconds that an activator has to stop. */}}
{{- define "dormouse.grace" -}}
{{- add (include "dormouse.seconds" .Values.shutdownDelay) (include "dormouse.seconds" .Values.drainTimeout) 60 -}}
{{- end }}

{{- /* A part of a quantity of memory, in bytes: dict "quantity" "1Gi" "part" 0.9. */}}
{{- define "dormouse.bytes" -}}
{{- $units := dict "" 1.0 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "Ki" 1024.0 "Mi" 1048576.0 "Gi" 1073741824.0 "Ti" 1099511627776.0 -}}
{{- $text := .quantity -}}
{{- if not (kindIs "string" $text) -}}
{{- $text = int64 $text | toString -}}
{{- end -}}
{{- if not (regexMatch "^[0-9]+([.][0-9]+)?([kMGT]|[KMGT]i)?$" $text) -}}
{{- fail (printf "resources.limits.memory: %q is not a quantity that this chart reads: write it as in 512Mi or 1Gi" $text) -}}
{{- end -}}
{{- $number := regexFind "^[0-9.]+" $text -}}
{{- mulf (float64 $number) (get $units (trimPrefix $number $text)) .part | floor | int64 -}}
{{- end }}

{{- /* What the schema cannot say. */}}
{{- define "dormouse.check" -}}
{{- if gt (int .Values.ports.from) (int .Values.ports.to) -}}
{{- fail (printf "ports: from %v is above to %v" .Values.ports.from .Values.ports.to) -}}
{{- end -}}
{{- range $key, $_ := include "dormouse.selector" . | fromYaml -}}
{{- if hasKey ($.Values.podLabels | default dict) $key -}}
{{- fail (printf "podLabels: %s is one of the labels that activators are known by: leave it out" $key) -}}
{{- end -}}
{{- end -}}
{{- range list 8012 8080 8443 9090 -}}
{{- if and (ge . (int $.Values.ports.from)) (le . (int $.Values.ports.to)) -}}
{{- fail (printf "ports: %d is one of the activator's own: choose a range without 8012, 8080, 8443 and 9090" .) -}}
{{- end -}}
{{- end -}}
{{- if and .Values.serviceMonitor.enabled .Values.podMonitor.enabled -}}
{{- fail "serviceMonitor.enabled and podMonitor.enabled: Prometheus would scrape every activator twice: enable one of them" -}}
{{- end -}}
{{- if and .Values.metrics.auth (or .Values.podMonitor.enabled .Values.metrics.scrapeAnnotations) -}}
{{- fail "metrics.auth: neither podMonitor nor metrics.scrapeAnnotations brings a token: use serviceMonitor, or a configuration of your own" -}}
{{- end -}}
{{- if and .Values.control.issuerRef (ne .Values.control.certificate "certManager") -}}
{{- fail "control.issuerRef: it is cert-manager's: set control.certificate to certManager" -}}
{{- end -}}
{{- if eq (include "dormouse.seconds" .Values.drainTimeout) "0" -}}
{{- fail (printf "drainTimeout: %s is not a duration to wait: use more than 0s, such as 5m" .Values.drainTimeout) -}}
{{- end -}}
{{- if and .Values.tls.secretName (eq (int .Values.service.ports.http) (int .Values.service.ports.https)) -}}
{{- fail (printf "service.ports: http and https are both %v" .Values.service.ports.http) -}}
{{- end -}}
{{- end }}
