package openmetrics

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// selection says which families are taken, and what becomes of them.
type selection struct {
	exact    map[string]target
	patterns []pattern // in the order of the configuration
}

type target struct {
	name string // "" means the family's own
	kind string // "" means the type that the page tells
}

type pattern struct {
	*regexp.Regexp
	target
}

// kinds are the types that a configuration may give to a metric.
var kinds = []string{"counter", "counter_gauge", "gauge", "histogram", "rate", "summary", "time_elapsed"}

// newSelection reads the lists of metrics: each entry is a name or pattern, or
// a mapping of such to a new name or to {name: new, type: kind}.
func newSelection(lists ...[]any) (*selection, error) {
	s := &selection{exact: map[string]target{}}
	for _, list := range lists {
		for n, entry := range list {
			var err error
			switch e := entry.(type) {
			case string:
				err = s.add(e, target{})
			case map[string]any:
				err = s.addMapping(e)
			default:
				err = fmt.Errorf("expected a name or a mapping")
			}
			if err != nil {
				return nil, fmt.Errorf("key %q: entry %d: %w", "metrics", n+1, err)
			}
		}
	}
	return s, nil
}

func (s *selection) addMapping(entry map[string]any) error {
	for _, name := range slices.Sorted(maps.Keys(entry)) {
		var t target
		switch v := entry[name].(type) {
		case string:
			t.name = v
		case map[string]any:
			for _, key := range slices.Sorted(maps.Keys(v)) {
				text, ok := v[key].(string)
				switch {
				case key == "name" && ok:
					t.name = text
				case key == "type" && ok:
					t.kind = text
				default:
					return fmt.Errorf("metric %q: key %q: expected name and type, which are strings", name, key)
				}
			}
		default:
			return fmt.Errorf("metric %q: expected a new name, or {name: new, type: gauge}", name)
		}
		if t.kind == "native" || t.kind == "native_dynamic" {
			t.kind = ""
		}
		if t.kind != "" && !slices.Contains(kinds, t.kind) {
			return fmt.Errorf("metric %q: type %q: expected native, %s", name, t.kind, strings.Join(kinds, ", "))
		}
		if err := s.add(name, t); err != nil {
			return err
		}
	}
	return nil
}

func (s *selection) add(name string, t target) error {
	if plainName.MatchString(name) {
		s.exact[name] = t
		return nil
	}
	p, err := namePattern(name)
	if err != nil {
		return err
	}
	t.name = "" // one name cannot stand for all that match
	s.patterns = append(s.patterns, pattern{p, t})
	return nil
}

// plainName is what stands for itself only.
var plainName = regexp.MustCompile(`^[A-Za-z0-9_:]+$`)

// namePattern reads a name, which matches itself, or a pattern, which matches
// names that contain a match, as Datadog's check does.
func namePattern(text string) (*regexp.Regexp, error) {
	if plainName.MatchString(text) {
		text = "^" + text + "$"
	}
	p, err := regexp.Compile(text)
	if err != nil {
		return nil, fmt.Errorf("pattern %q: %w", text, err)
	}
	return p, nil
}

// find returns what becomes of the family of that name. A name that ends in
// _total is also found without: so Datadog's check calls counters.
func (s *selection) find(name string) (target, bool) {
	short := strings.TrimSuffix(name, "_total")
	for _, n := range []string{name, short} {
		if t, ok := s.exact[n]; ok {
			if t.name == "" {
				t.name = short
			}
			return t, true
		}
	}
	for _, p := range s.patterns {
		if p.MatchString(short) || p.MatchString(name) {
			return target{name: short, kind: p.kind}, true
		}
	}
	return target{}, false
}
