package check

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"kelpie.dev/kelpie/agent/origin"
)

// variables are what the template variables of a configuration stand for.
// Reference: Datadog's guide "Autodiscovery template variables".
type variables struct {
	pod   *origin.Pod // nil when nothing is watched
	ports []origin.ContainerPort
	// env gives a variable of the agent's own environment, if it may be read.
	env func(name string) (string, bool)
}

// replaceAll returns a copy of values whose strings have their variables
// replaced. A replacement is never read as JSON or as another variable.
func (v *variables) replaceAll(values map[string]any) (map[string]any, error) {
	out := make(map[string]any, len(values))
	for key, value := range values {
		replaced, err := v.replace(value)
		if err != nil {
			return nil, fmt.Errorf("key %q: %w", shorten(key), err)
		}
		out[key] = replaced
	}
	return out, nil
}

func (v *variables) replace(value any) (any, error) {
	switch x := value.(type) {
	case string:
		return v.expand(x)
	case map[string]any:
		return v.replaceAll(x)
	case []any:
		out := make([]any, len(x))
		for i := range x {
			var err error
			if out[i], err = v.replace(x[i]); err != nil {
				return nil, err
			}
		}
		return out, nil
	default:
		return value, nil
	}
}

const mark = "%%"

func (v *variables) expand(text string) (string, error) {
	var b strings.Builder
	for rest := text; ; {
		before, after, found := strings.Cut(rest, mark)
		b.WriteString(before)
		if !found {
			return b.String(), nil
		}
		name, next, closed := strings.Cut(after, mark)
		if !closed || strings.ContainsAny(name, " \t\n") { // a lone mark is text
			b.WriteString(mark)
			rest = after
			continue
		}
		value, err := v.value(name, strings.Contains(text, "://"))
		if err != nil {
			return "", err
		}
		b.WriteString(value)
		rest = next
	}
}

// value returns what %%name%% stands for.
func (v *variables) value(name string, inURL bool) (string, error) {
	kind, rest, _ := strings.Cut(name, "_")
	if kind == "env" && rest != "" {
		if value, ok := v.env(rest); ok {
			return value, nil
		}
		return "", fmt.Errorf("variable %%%%%s%%%%: the agent's environment has no such variable, or it may not be read by a pod: add it to KELPIE_CHECKS_POD_ENV", shorten(name))
	}
	if v.pod == nil {
		return "", fmt.Errorf("variable %%%%%s%%%% needs a container to stand for: add ad_identifiers with the image's name, or write the value", shorten(name))
	}
	switch name {
	case "kube_namespace":
		return v.pod.Metadata.Namespace, nil
	case "kube_pod_name", "pod_name", "hostname":
		return v.pod.Metadata.Name, nil
	case "kube_pod_uid":
		return v.pod.Metadata.UID, nil
	}
	switch kind {
	case "host":
		return v.host(inURL)
	case "port":
		return v.port(rest)
	default:
		return "", fmt.Errorf("variable %%%%%s%%%% is not known: expected host, port, port_<name>, port_<number>, kube_namespace, kube_pod_name, kube_pod_uid or env_<NAME>", shorten(name))
	}
}

func (v *variables) host(inURL bool) (string, error) {
	ip, err := netip.ParseAddr(v.pod.Status.PodIP)
	if err != nil {
		return "", fmt.Errorf("variable %%%%host%%%%: the pod has no address yet")
	}
	if ip.Is6() && inURL {
		return "[" + ip.String() + "]", nil
	}
	return ip.String(), nil
}

// port returns the port of that name or, counted from the lowest, number; the
// highest without a name.
func (v *variables) port(name string) (string, error) {
	ports := slices.SortedFunc(slices.Values(v.ports), func(a, b origin.ContainerPort) int { return a.Port - b.Port })
	if len(ports) == 0 {
		return "", fmt.Errorf("variable %%%%port%%%%: the container declares no port: declare it in the pod's spec, or write the number")
	}
	if name == "" {
		return strconv.Itoa(ports[len(ports)-1].Port), nil
	}
	if n, err := strconv.Atoi(name); err == nil && n >= 0 && n < len(ports) {
		return strconv.Itoa(ports[n].Port), nil
	}
	for _, p := range ports {
		if p.Name == name {
			return strconv.Itoa(p.Port), nil
		}
	}
	return "", fmt.Errorf("variable %%%%port_%s%%%%: the container declares %d ports, and none of that name or number", shorten(name), len(ports))
}
