package origin

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
)

// TagOptions are the user's rules of what becomes a tag besides what always
// does. The zero value has none.
type TagOptions struct {
	PodLabels       TagMap
	PodAnnotations  TagMap
	NamespaceLabels TagMap            // of the pod's namespace; needs a Cluster
	NodeLabels      TagMap            // see NodeTags
	ContainerEnv    TagMap            // variables of the container's specification
	Split           map[string]string // tag name to separator: one value becomes several tags
	NoServices      bool              // no kube_service
	NoVolumeClaims  bool              // no persistentvolumeclaim
}

// A TagMap says which tags the entries of a map, such as a pod's labels, make.
// The zero value makes none.
type TagMap struct{ rules []tagRule }

// tagRule makes a tag of each name from an entry whose key is pattern.
type tagRule struct {
	pattern string // lower case; '*' and '?' are wildcards if there is a '*'
	names   []string
}

// ParseTagMap reads a map as Datadog's kubernetes_pod_labels_as_tags and its
// like are written: a JSON object from a key, or a pattern with '*' for any
// text, to one tag name or several separated by commas. Keys are compared in
// lower case. In a name, %%label%%, %%annotation%% and %%env%% stand for the
// key; a '+' before it makes the tag one of high cardinality. Empty is no map.
func ParseTagMap(text string) (TagMap, error) {
	if strings.TrimSpace(text) == "" {
		return TagMap{}, nil
	}
	var object map[string]string
	if err := json.Unmarshal([]byte(text), &object); err != nil {
		return TagMap{}, errors.New(`expected a JSON object of strings such as {"app": "kube_app"}`)
	}
	return newTagMap(object), nil
}

// ParseResourceTagMaps reads kubernetes_resources_labels_as_tags and its like:
// a JSON object from a resource, such as pods, to a map as ParseTagMap reads.
func ParseResourceTagMaps(text string) (map[string]TagMap, error) {
	if strings.TrimSpace(text) == "" {
		return nil, nil
	}
	var object map[string]map[string]string
	if err := json.Unmarshal([]byte(text), &object); err != nil {
		return nil, errors.New(`expected a JSON object of objects of strings such as {"pods": {"app": "kube_app"}}`)
	}
	out := map[string]TagMap{}
	for resource, rules := range object {
		resource = strings.TrimSuffix(resource, ".") // the core group's name is empty
		out[resource] = out[resource].Merge(newTagMap(rules))
	}
	return out, nil
}

func newTagMap(object map[string]string) TagMap {
	m := TagMap{}
	for key, names := range object {
		rule := tagRule{pattern: strings.ToLower(key)}
		for name := range strings.SplitSeq(names, ",") {
			if name = strings.TrimSpace(name); name != "" {
				rule.names = append(rule.names, name)
			}
		}
		m.rules = append(m.rules, rule)
	}
	slices.SortFunc(m.rules, func(a, b tagRule) int { return strings.Compare(a.pattern, b.pattern) })
	return m
}

// Merge returns the rules of both; over's stand where both have the same key.
func (m TagMap) Merge(over TagMap) TagMap {
	out := TagMap{rules: slices.Clone(over.rules)}
	for _, rule := range m.rules {
		if !slices.ContainsFunc(over.rules, func(r tagRule) bool { return r.pattern == rule.pattern }) {
			out.rules = append(out.rules, rule)
		}
	}
	return out
}

// Empty reports whether m makes no tag of anything.
func (m TagMap) Empty() bool { return len(m.rules) == 0 }

// addTo adds the tags that entries make.
func (m TagMap) addTo(t *tagList, entries map[string]string) {
	if m.Empty() {
		return
	}
	for key, value := range entries {
		lower := strings.ToLower(key)
		for _, rule := range m.rules {
			if !rule.matches(lower) {
				continue
			}
			for _, name := range rule.names {
				t.addUser(fillTemplate(name, key), value)
			}
		}
	}
}

func (r tagRule) matches(key string) bool {
	if !strings.Contains(r.pattern, "*") {
		return r.pattern == key
	}
	return matchWildcards(r.pattern, key)
}

// matchWildcards reports whether pattern, in which '*' stands for any text and
// '?' for any byte, matches all of s. It goes back to the last '*' only, so it
// is never worse than quadratic.
func matchWildcards(pattern, s string) bool {
	p, i := 0, 0
	star, resume := -1, 0
	for i < len(s) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, resume = p, i
			p++
		case p < len(pattern) && (pattern[p] == '?' || pattern[p] == s[i]):
			p++
			i++
		case star >= 0:
			resume++
			p, i = star+1, resume
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}

// fillTemplate puts key where name has a variable that stands for it, and
// nothing where it has another.
func fillTemplate(name, key string) string {
	var b strings.Builder
	for {
		before, rest, ok := strings.Cut(name, "%%")
		variable, after, closed := strings.Cut(rest, "%%")
		if !ok || !closed {
			b.WriteString(name)
			return b.String()
		}
		b.WriteString(before)
		switch variable {
		case "label", "annotation", "env":
			b.WriteString(key)
		}
		name = after
	}
}

// NodeTags returns the tags that a node's labels make of its host: its roles
// and what o.NodeLabels says.
func NodeTags(labels map[string]string, o TagOptions) []string {
	t := &tagList{split: o.Split}
	for key, value := range labels {
		if role, ok := strings.CutPrefix(key, "node-role.kubernetes.io/"); ok {
			t.add(Low, "kube_node_role", role)
		}
		if key == "kubernetes.io/role" { // as older installers write it
			t.add(Low, "kube_node_role", value)
		}
	}
	o.NodeLabels.addTo(t, labels)
	return t.levels("").At(High)
}
