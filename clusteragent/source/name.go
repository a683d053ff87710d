package source

import (
	"fmt"
	"slices"
	"strings"
)

// A Name says which source a query is for. The zero Name is the cluster's own.
type Name string

// The sources there are.
const (
	Kelpie     Name = "kelpie"     // a Kelpie backend: pushed, and polled while it cannot push
	Datadog    Name = "datadog"    // Datadog's API: polled
	Prometheus Name = "prometheus" // any server with Prometheus' API: PromQL, polled
)

var names = []Name{Kelpie, Datadog, Prometheus}

// ParseName returns the name in text; "" is the cluster's own source.
func ParseName(text string) (Name, error) {
	if n := Name(text); text == "" || slices.Contains(names, n) {
		return n, nil
	}
	return "", fmt.Errorf("%.50q: write %s, %s or %s", text, Kelpie, Datadog, Prometheus)
}

// settings is where a source is configured, for the message that it is not.
func (n Name) settings() string {
	switch n {
	case Prometheus:
		return "KELPIE_PROMETHEUS_URL"
	case Kelpie, Datadog:
		s := "KELPIE_SOURCE_" + strings.ToUpper(string(n)) + "_"
		return s + "API_KEY and " + s + "APP_KEY"
	default:
		return "KELPIE_SOURCE"
	}
}
