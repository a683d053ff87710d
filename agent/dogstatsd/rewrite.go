package dogstatsd

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// RewriteOptions say which names metrics have from here on. The zero value
// leaves them as they are.
type RewriteOptions struct {
	Profiles  []MapperProfile
	Namespace string   // put before every name, with a '.'; "" for none
	Exempt    []string // beginnings of names that Namespace is not put before
	Blocked   []string // names, after all of the above, whose samples are dropped
	// BlockedPrefixes reads Blocked as beginnings of names.
	BlockedPrefixes bool
}

// A MapperProfile turns parts of names into tags, as DD_DOGSTATSD_MAPPER_PROFILES
// holds it.
type MapperProfile struct {
	Name     string    `json:"name"`
	Prefix   string    `json:"prefix"` // of the names that it is for; "*" for all
	Mappings []Mapping `json:"mappings"`
}

// A Mapping renames what Match matches.
type Mapping struct {
	Match     string            `json:"match"`      // where '*' stands for anything but a dot, or a regular expression
	MatchType string            `json:"match_type"` // "wildcard" (the default) or "regex"
	Name      string            `json:"name"`       // $1 is what the first '*', or group, stands for
	Tags      map[string]string `json:"tags"`       // likewise
}

// ParseMapperProfiles reads the JSON list of profiles.
func ParseMapperProfiles(text string) ([]MapperProfile, error) {
	var out []MapperProfile
	if err := json.Unmarshal([]byte(text), &out); err != nil {
		return nil, fmt.Errorf(`expected a JSON list such as [{"name":"jobs","prefix":"jobs.","mappings":[{"match":"jobs.*.done","name":"jobs.done","tags":{"job":"$1"}}]}]: %w`, err)
	}
	return out, nil
}

// Rewriter gives metrics their final names. A nil Rewriter changes nothing.
type Rewriter struct {
	o        RewriteOptions
	profiles []profile
}

type profile struct {
	prefix   string
	mappings []mapping
}

type mapping struct {
	match *regexp.Regexp
	name  string
	tags  []string // "key:template", sorted
}

// NewRewriter returns a Rewriter, or an error that names the profile and the
// mapping that cannot be used.
func NewRewriter(o RewriteOptions) (*Rewriter, error) {
	if o.Namespace != "" && !strings.HasSuffix(o.Namespace, ".") {
		o.Namespace += "."
	}
	r := &Rewriter{o: o}
	for _, p := range o.Profiles {
		if p.Name == "" || p.Prefix == "" {
			return nil, fmt.Errorf("mapper profile %q: expected a name and a prefix (* for every metric)", p.Name)
		}
		compiled := profile{prefix: p.Prefix}
		for i, m := range p.Mappings {
			c, err := m.compile()
			if err != nil {
				return nil, fmt.Errorf("mapper profile %q, mapping %d (%q): %w", p.Name, i+1, m.Match, err)
			}
			compiled.mappings = append(compiled.mappings, c)
		}
		r.profiles = append(r.profiles, compiled)
	}
	return r, nil
}

var wildcardPattern = regexp.MustCompile(`^[a-zA-Z0-9\-_*.]+$`)

func (m *Mapping) compile() (mapping, error) {
	var pattern string
	switch {
	case m.Name == "":
		return mapping{}, fmt.Errorf("it has no name to map to")
	case m.MatchType == "regex":
		pattern = m.Match
	case m.MatchType != "" && m.MatchType != "wildcard":
		return mapping{}, fmt.Errorf("match_type %q: expected wildcard or regex", m.MatchType)
	case !wildcardPattern.MatchString(m.Match) || strings.Contains(m.Match, "**"):
		return mapping{}, fmt.Errorf("a wildcard match holds letters, digits, '-', '_', '.' and single '*'")
	default:
		pattern = strings.ReplaceAll(regexp.QuoteMeta(m.Match), `\*`, `([^.]*)`)
	}
	match, err := regexp.Compile("^(?:" + pattern + ")$")
	if err != nil {
		return mapping{}, err
	}
	out := mapping{match: match, name: braces(m.Name)}
	for _, key := range slices.Sorted(maps.Keys(m.Tags)) {
		out.tags = append(out.tags, key+":"+braces(m.Tags[key]))
	}
	return out, nil
}

var groupReference = regexp.MustCompile(`\$(\d+)`)

// braces keeps "$1_x" from being read as the group named 1_x.
func braces(template string) string { return groupReference.ReplaceAllString(template, "$${$1}") }

// Rewrite gives m its final name, and the tags that parts of the old one have
// become. It reports whether m is to be kept.
func (r *Rewriter) Rewrite(m *Metric) bool {
	if r == nil {
		return true
	}
	r.mapName(m)
	if r.o.Namespace != "" && !r.exempt(m.Name) {
		m.Name = append([]byte(r.o.Namespace), m.Name...)
	}
	return !slices.ContainsFunc(r.o.Blocked, func(b string) bool {
		if r.o.BlockedPrefixes {
			return bytes.HasPrefix(m.Name, []byte(b))
		}
		return string(m.Name) == b
	})
}

func (r *Rewriter) exempt(name []byte) bool {
	return slices.ContainsFunc(r.o.Exempt, func(prefix string) bool { return bytes.HasPrefix(name, []byte(prefix)) })
}

// mapName applies the first mapping that matches, of the first profile that is
// for m.
func (r *Rewriter) mapName(m *Metric) {
	for _, p := range r.profiles {
		if p.prefix != "*" && !bytes.HasPrefix(m.Name, []byte(p.prefix)) {
			continue
		}
		for _, rule := range p.mappings {
			at := rule.match.FindSubmatchIndex(m.Name)
			if at == nil {
				continue
			}
			tags := slices.Clone(m.Tags)
			for _, t := range rule.tags {
				tags = append(tags, rule.match.Expand(nil, []byte(t), m.Name, at))
			}
			m.Tags, m.Name = tags, rule.match.Expand(nil, []byte(rule.name), m.Name, at)
			return
		}
		return
	}
}
