package check

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/cespare/xxhash/v2"

	"kelpie.dev/kelpie/agent/check/fetch"
	"kelpie.dev/kelpie/agent/origin"
	"kelpie.dev/kelpie/metric"
)

// An Instance is the configuration of one check.
type Instance struct {
	Check  string
	Source string         // where it was configured, for people
	Init   map[string]any // init_config, which instances of one document share
	Values map[string]any // the instance's own keys
	Access fetch.Access   // what it may read and whom it may ask
	Entity origin.Entity  // whose tags go on its series; zero for none

	common   common
	warnings []string
}

// common are the keys that every instance of every check may have.
type common struct {
	MinCollectionInterval float64  `json:"min_collection_interval"` // seconds; 0 means the default
	Tags                  []string `json:"tags"`
	Service               string   `json:"service"`
	Name                  string   `json:"name"`
	EmptyDefaultHostname  bool     `json:"empty_default_hostname"`
	DisableTags           bool     `json:"ignore_autodiscovery_tags"`
}

// The bounds of min_collection_interval.
const (
	minInterval = time.Second
	maxInterval = 24 * time.Hour
)

// Decode reads the instance's keys into the struct that v points to, by its
// json tags. Keys that neither v nor any check knows become warnings of the
// instance: a configuration written for Datadog's own check may have more than
// ours reads.
func (i *Instance) Decode(v any) error {
	if err := decodeKeys(i.Values, v); err != nil {
		return err
	}
	known := append(keysOf(reflect.TypeOf(v).Elem()), keysOf(reflect.TypeFor[common]())...)
	for _, key := range slices.Sorted(maps.Keys(i.Values)) {
		if !slices.Contains(known, key) {
			i.warnings = append(i.warnings, fmt.Sprintf("key %q is not one that this check reads, and is ignored", shorten(key)))
		}
	}
	return nil
}

// decodeCommon reads what all checks share; the instance's own keys come
// before init_config's.
func (i *Instance) decodeCommon() error {
	if err := decodeKeys(i.Init, &i.common); err != nil {
		return fmt.Errorf("init_config: %w", err)
	}
	tags := i.common.Tags
	i.common.Tags = nil
	if err := decodeKeys(i.Values, &i.common); err != nil {
		return err
	}
	i.common.Tags = append(i.common.Tags, tags...)
	if d := i.interval(); i.common.MinCollectionInterval != 0 && (d < minInterval || d > maxInterval) {
		return fmt.Errorf("key %q: expected %v to %v seconds", "min_collection_interval", minInterval.Seconds(), maxInterval.Seconds())
	}
	return nil
}

func (i *Instance) interval() time.Duration {
	if s := i.common.MinCollectionInterval; s != 0 {
		return time.Duration(min(max(s, -1), 2*maxInterval.Seconds()) * float64(time.Second))
	}
	return DefaultInterval
}

// tags returns the tags that the configuration gives.
func (i *Instance) tags() metric.Tags {
	tags := metric.NewTags(i.common.Tags...)
	if i.common.Service != "" {
		tags = tags.Union("service:" + i.common.Service)
	}
	return tags
}

// id tells configurations apart: it changes when anything of one does.
func (i *Instance) id() uint64 {
	text, _ := json.Marshal([]any{i.Check, i.Source, i.Init, i.Values, i.Access, i.Entity}) // of decoded JSON, strings and addresses: cannot fail
	return xxhash.Sum64(text)
}

func decodeKeys(keys map[string]any, v any) error {
	text, err := json.Marshal(keys)
	if err != nil {
		return err
	}
	err = json.Unmarshal(text, v)
	if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		key := wrong.Field
		if embedded, rest, ok := strings.Cut(key, "."); ok && embedded[0] >= 'A' && embedded[0] <= 'Z' {
			key = rest // keys are lower case; this was the Go name of an embedded struct
		}
		return fmt.Errorf("key %q: expected %s, found %s", key, kindName(wrong.Type), wrong.Value)
	}
	return err
}

// kindName says what a key should hold, in a configuration's words.
func kindName(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.String:
		return "a string"
	case reflect.Slice:
		return "a list"
	case reflect.Map, reflect.Struct:
		return "a mapping"
	case reflect.Pointer:
		return kindName(t.Elem())
	default:
		return "a number"
	}
}

// keysOf returns the JSON keys of a struct, those of embedded structs included.
func keysOf(t reflect.Type) []string {
	var keys []string
	for f := range t.Fields() {
		switch name, _, _ := strings.Cut(f.Tag.Get("json"), ","); {
		case f.Anonymous && name == "":
			keys = append(keys, keysOf(f.Type)...)
		case name != "" && name != "-":
			keys = append(keys, name)
		}
	}
	return keys
}

// shorten bounds text from elsewhere that goes into a message.
func shorten(s string) string {
	const limit = 300
	if len(s) > limit {
		return strings.ToValidUTF8(s[:limit], "") + "…"
	}
	return s
}
