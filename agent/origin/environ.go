package origin

import "strings"

// environ returns the variables that c's specification sets: literal ones with
// their references to earlier ones filled in, and references to the pod's
// fields. What comes from config maps, secrets and the image is not known here.
func (c *Container) environ(p *Pod) map[string]string {
	if len(c.Env) == 0 {
		return nil
	}
	out := make(map[string]string, len(c.Env))
	for _, e := range c.Env {
		switch {
		case e.ValueFrom == nil:
			if value := expand(e.Value, out); len(value) <= maxHint {
				out[e.Name] = value
			} else {
				delete(out, e.Name) // no tag is that long
			}
		case e.ValueFrom.FieldRef != nil:
			out[e.Name] = p.field(e.ValueFrom.FieldRef.FieldPath)
		default:
			delete(out, e.Name)
		}
	}
	return out
}

// expand fills $(NAME) in as Kubernetes does: $$ is a '$', and a reference to
// what is not known stays as it is.
func expand(s string, known map[string]string) string {
	if !strings.Contains(s, "$") {
		return s
	}
	var b strings.Builder
	for {
		i := strings.IndexByte(s, '$')
		if i < 0 || i+1 == len(s) {
			b.WriteString(s)
			return b.String()
		}
		b.WriteString(s[:i])
		s = s[i:]
		name, after, closed := strings.Cut(s[2:], ")")
		switch {
		case s[1] == '$':
			b.WriteByte('$')
			s = s[2:]
		case s[1] != '(' || !closed:
			b.WriteString(s[:2])
			s = s[2:]
		default:
			if value, ok := known[name]; ok {
				b.WriteString(value)
			} else {
				b.WriteString(s[:len(name)+3])
			}
			s = after
		}
		if b.Len() > maxHint {
			return b.String() + s // references to references grow fast
		}
	}
}

// field returns what the downward API gives for path, or "".
func (p *Pod) field(path string) string {
	if key, ok := subscript(path, "metadata.labels"); ok {
		return p.Metadata.Labels[key]
	}
	if key, ok := subscript(path, "metadata.annotations"); ok {
		return p.Metadata.Annotations[key]
	}
	switch path {
	case "metadata.name":
		return p.Metadata.Name
	case "metadata.namespace":
		return p.Metadata.Namespace
	case "metadata.uid":
		return p.Metadata.UID
	case "spec.nodeName":
		return p.Spec.NodeName
	case "status.podIP":
		return p.Status.PodIP
	case "status.hostIP":
		return p.Status.HostIP
	default:
		return ""
	}
}

// subscript returns the key of path when it is field['key'].
func subscript(path, field string) (key string, ok bool) {
	if key, ok = strings.CutPrefix(path, field+"['"); ok {
		key, ok = strings.CutSuffix(key, "']")
	}
	return key, ok
}

// serviceTagsOf returns env, service and version as a container's variables
// give them: Datadog's, else OpenTelemetry's.
func serviceTagsOf(env map[string]string) map[string]string {
	out := map[string]string{}
	for pair := range strings.SplitSeq(env["OTEL_RESOURCE_ATTRIBUTES"], ",") {
		key, value, _ := strings.Cut(pair, "=")
		value = strings.TrimSpace(value)
		switch strings.TrimSpace(key) {
		case "service.name":
			out["service"] = value
		case "service.version":
			out["version"] = value
		case "deployment.environment", "deployment.environment.name":
			out["env"] = value
		}
	}
	if name := env["OTEL_SERVICE_NAME"]; name != "" {
		out["service"] = name
	}
	for _, s := range standard {
		if env[s.env] != "" {
			out[s.tag] = env[s.env]
		}
	}
	return out
}
