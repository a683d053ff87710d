package auth

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Application is the kind of keys that may carry scopes.
const Application = "application"

// Scopes are what an application key can be restricted to, by Datadog's names.
var Scopes = []string{
	"metrics_read", "timeseries_query", "metrics_metadata_write", "metric_tags_write", "hosts_read",
	"events_read", "monitors_read", "monitors_write", "dashboards_read", "dashboards_write",
}

// A ScopeError is a valid key that may not do what was asked.
type ScopeError struct{ Scope string }

func (e *ScopeError) Error() string { return "Token is missing required scope " + e.Scope } // Datadog's own words

func (k *key) allows(scope string) bool {
	return scope == "" || k.scopes == nil || slices.Contains(k.scopes, scope)
}

// parseKeys reads a key file. Its errors name the line, never a key.
func parseKeys(text string, scoped bool) ([]key, error) {
	var keys []key
	number := 0
	for line := range strings.Lines(text) {
		number++
		line, _, _ = strings.Cut(line, "#")
		before := len(keys)
		for field := range strings.FieldsSeq(line) {
			list, restricts := strings.CutPrefix(field, "scopes=")
			if !restricts {
				keys = append(keys, newKey(field))
				continue
			}
			var err error
			switch {
			case !scoped:
				err = errors.New("only application keys have scopes")
			case len(keys) == before:
				err = errors.New("scopes= must follow a key")
			case keys[len(keys)-1].scopes != nil:
				err = errors.New("a key has scopes= twice")
			default:
				keys[len(keys)-1].scopes, err = parseScopes(list)
			}
			if err != nil {
				return nil, fmt.Errorf("line %d: %w", number, err)
			}
		}
	}
	return keys, nil
}

// parseScopes reads scopes separated by commas; none opens nothing.
func parseScopes(list string) ([]string, error) {
	scopes := []string{}
	for scope := range strings.SplitSeq(list, ",") {
		switch {
		case scope == "":
		case !slices.Contains(Scopes, scope):
			return nil, fmt.Errorf("unknown scope %q: expected some of %s", scope, strings.Join(Scopes, ", "))
		default:
			scopes = append(scopes, scope)
		}
	}
	return scopes, nil
}
