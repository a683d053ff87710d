package check

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Limits of what one pod may configure.
const (
	maxAnnotation   = 64 << 10 // bytes of one annotation
	maxPodInstances = 32
)

const annotationPrefix = "ad.datadoghq.com/"

// The annotations of a container, after its name: all checks in one, or three
// lists that belong together.
const (
	keyChecks     = ".checks"
	keyNames      = ".check_names"
	keyInits      = ".init_configs"
	keyInstances  = ".instances"
	keyIdentifier = ".check.id"
)

const checksExample = `expected {"nginx": {"init_config": {}, "instances": [{"nginx_status_url": "http://%%host%%:%%port%%/nginx_status"}]}}`

// annotatedContainers returns the names by which the annotations configure
// checks, in order.
func annotatedContainers(annotations map[string]string) []string {
	var names []string
	for _, key := range slices.Sorted(maps.Keys(annotations)) {
		name, ok := strings.CutPrefix(key, annotationPrefix)
		if !ok {
			continue
		}
		for _, suffix := range []string{keyChecks, keyNames} {
			if name, ok := strings.CutSuffix(name, suffix); ok && !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	return names
}

// readAnnotations returns the checks that annotations configure for the
// container that they call name. The newer form comes first when both are
// there.
func readAnnotations(annotations map[string]string, name string) ([]*document, error) {
	prefix := annotationPrefix + name
	for _, suffix := range []string{keyChecks, keyNames, keyInits, keyInstances} {
		if n := len(annotations[prefix+suffix]); n > maxAnnotation {
			return nil, fmt.Errorf("annotation %s has %d bytes: expected at most %d", prefix+suffix, n, maxAnnotation)
		}
	}
	if text, ok := annotations[prefix+keyChecks]; ok {
		docs, err := readChecks(text)
		if err != nil {
			return nil, fmt.Errorf("annotation %s: %w", prefix+keyChecks, err)
		}
		return docs, nil
	}
	docs, err := readTriple(annotations[prefix+keyNames], annotations[prefix+keyInits], annotations[prefix+keyInstances])
	if err != nil {
		return nil, fmt.Errorf("annotations %s{%s,%s,%s}: %w", prefix, keyNames, keyInits, keyInstances, err)
	}
	return docs, nil
}

// readChecks reads {"<check>": {"init_config": {}, "instances": [{}]}, …}.
func readChecks(text string) ([]*document, error) {
	var checks map[string]map[string]any
	if err := json.Unmarshal([]byte(text), &checks); err != nil {
		return nil, fmt.Errorf("%s: %s", jsonProblem(err), checksExample)
	}
	var docs []*document
	for _, name := range slices.Sorted(maps.Keys(checks)) {
		d := &document{check: name}
		if err := decodeKeys(checks[name], d); err != nil {
			return nil, fmt.Errorf("check %q: %w", shorten(name), err)
		}
		if len(d.Instances) == 0 {
			if checks[name]["logs"] != nil {
				continue // a configuration for logs only
			}
			return nil, fmt.Errorf("check %q: key %q: expected a list of at least one instance", shorten(name), "instances")
		}
		d.Identifiers, d.Cluster = nil, false // not a pod's to say
		docs = append(docs, d)
	}
	return docs, nil
}

// readTriple reads the older form: names of checks, their init_configs, and
// for each of them an instance or a list of instances.
func readTriple(names, inits, instances string) ([]*document, error) {
	var (
		checks  []string
		configs []map[string]any
		each    []json.RawMessage
	)
	if err := json.Unmarshal([]byte(names), &checks); err != nil {
		return nil, fmt.Errorf(`%s: %s: expected ["nginx"]`, keyNames, jsonProblem(err))
	}
	if inits != "" {
		if err := json.Unmarshal([]byte(inits), &configs); err != nil {
			return nil, fmt.Errorf(`%s: %s: expected [{}]`, keyInits, jsonProblem(err))
		}
	}
	if err := json.Unmarshal([]byte(instances), &each); err != nil {
		return nil, fmt.Errorf(`%s: %s: expected [{"nginx_status_url": "…"}]`, keyInstances, jsonProblem(err))
	}
	if len(each) != len(checks) || inits != "" && len(configs) != len(checks) {
		return nil, fmt.Errorf("%d names, %d init_configs and %d instances: expected one of each for every check", len(checks), len(configs), len(each))
	}
	var docs []*document
	for i, name := range checks {
		d := &document{check: name}
		if inits != "" {
			d.Init = configs[i]
		}
		if json.Unmarshal(each[i], &d.Instances) != nil {
			var one map[string]any
			if err := json.Unmarshal(each[i], &one); err != nil || one == nil {
				return nil, fmt.Errorf("%s: check %q: expected a mapping, or a list of mappings", keyInstances, shorten(name))
			}
			d.Instances = []map[string]any{one}
		}
		docs = append(docs, d)
	}
	return docs, nil
}

// jsonProblem says where text is not JSON, without repeating it.
func jsonProblem(err error) string {
	if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
		return fmt.Sprintf("not JSON at byte %d (%v)", syntax.Offset, syntax)
	}
	if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return fmt.Sprintf("expected %s at byte %d, found %s", kindName(wrong.Type), wrong.Offset, wrong.Value)
	}
	return "not JSON"
}
