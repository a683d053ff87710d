package agent

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"kelpie.dev/kelpie/agent/forward"
	"kelpie.dev/kelpie/datadog"
	"kelpie.dev/kelpie/env"
)

// intakeRelease is the release of Datadog's agent whose payloads this agent
// sends: the host name of a Datadog site's intake names one.
const intakeRelease = "7.85.0"

// endpoints returns the main intake and the additional ones.
func endpoints(r *env.Reader) ([]forward.Endpoint, error) {
	key, file := r.String("", "DD_API_KEY"), r.String("", "KELPIE_API_KEY_FILE")
	if key == "" && file == "" {
		return nil, errors.New("environment variable DD_API_KEY is not set: the intake takes no series without an API key")
	}
	url, from := r.String("", "DD_DD_URL", "DD_URL"), "DD_DD_URL"
	if url == "" {
		site := r.String(datadog.DefaultSite, "DD_SITE")
		if strings.ContainsAny(site, "/:@?# ") {
			return nil, errors.New("environment variable DD_SITE: expected a host name such as datadoghq.eu; DD_DD_URL takes a URL")
		}
		url, from = datadog.IntakeURL(site, intakeRelease), "DD_SITE"
	}
	first := forward.Endpoint{URL: url, APIKey: key, APIKeyFile: file}
	if err := first.Validate(); err != nil {
		return nil, fmt.Errorf("environment variables %s and DD_API_KEY: %w", from, err)
	}
	more, err := additionalEndpoints(r.String("", "DD_ADDITIONAL_ENDPOINTS"))
	if err != nil {
		return nil, fmt.Errorf("environment variable DD_ADDITIONAL_ENDPOINTS: %w", err)
	}
	out := []forward.Endpoint{first}
	for _, e := range more {
		if !slices.Contains(out, e) {
			out = append(out, e)
		}
	}
	return out, nil
}

// additionalEndpoints reads JSON, the keys by URL. A key that begins with file:
// names the file that holds it.
func additionalEndpoints(text string) (out []forward.Endpoint, err error) {
	if text == "" {
		return nil, nil
	}
	var more map[string][]string
	if err := json.Unmarshal([]byte(text), &more); err != nil {
		return nil, errors.New(`expected JSON such as {"https://intake.example.com": ["key"]}`)
	}
	for _, u := range slices.Sorted(maps.Keys(more)) {
		for _, key := range more[u] {
			e := forward.Endpoint{URL: u, APIKey: strings.TrimSpace(key)}
			if path, ok := strings.CutPrefix(e.APIKey, "file:"); ok {
				e.APIKey, e.APIKeyFile = "", path
			}
			if err := e.Validate(); err != nil {
				return nil, err
			}
			out = append(out, e)
		}
	}
	return out, nil
}
