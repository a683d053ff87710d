package check

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"

	"kelpie.dev/kelpie/agent/check/fetch"
)

// maxFile bounds a configuration file in bytes.
const maxFile = 1 << 20

// A Problem is a configuration that could not be used.
type Problem struct {
	Source string `json:"source"`
	Check  string `json:"check,omitempty"`
	Error  string `json:"error"` // what is wrong, and the mend
}

// document is what configures the instances of one check.
type document struct {
	Init        map[string]any   `json:"init_config"`
	Instances   []map[string]any `json:"instances"`
	Identifiers []string         `json:"ad_identifiers"`
	Cluster     bool             `json:"cluster_check"`

	check  string
	source string
}

// readDocument reads a configuration file.
func readDocument(check, source string, text []byte) (*document, error) {
	asJSON, err := yaml.YAMLToJSONStrict(text)
	if err != nil {
		return nil, fmt.Errorf("not YAML: %w", err)
	}
	var keys map[string]any
	d := &document{check: check, source: source}
	if err := json.Unmarshal(asJSON, &keys); err != nil {
		return nil, errors.New(`expected a mapping with the keys "init_config" and "instances"`)
	}
	if err := decodeKeys(keys, d); err != nil {
		return nil, err
	}
	switch {
	case d.Cluster:
		return nil, errors.New(`key "cluster_check": checks that run once in a cluster are not dispatched; without the key the check runs on every node that has the file`)
	case len(d.Instances) == 0:
		return nil, errors.New(`key "instances": expected a list of at least one instance`)
	}
	return d, nil
}

// readDir reads <dir>/<check>.yaml and <dir>/<check>.d/*.yaml, as Datadog's
// agent does. A directory that is not there holds nothing.
func readDir(dir string) (documents []*document, problems []Problem) {
	if dir == "" {
		return nil, nil
	}
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, []Problem{{Source: dir, Error: fmt.Sprintf("list the checks' configuration: %v", err)}}
	}
	read := func(check, path string) {
		d, err := readFile(check, path)
		if err != nil {
			problems = append(problems, Problem{Source: "file " + path, Check: check, Error: err.Error()})
			return
		}
		documents = append(documents, d)
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if check, ok := configFile(e.Name()); ok {
			read(check, path)
			continue
		}
		check, ok := strings.CutSuffix(e.Name(), ".d")
		if !ok {
			continue
		}
		files, err := os.ReadDir(path)
		if err != nil {
			problems = append(problems, Problem{Source: path, Check: check, Error: fmt.Sprintf("list the check's configuration: %v", err)})
		}
		for _, f := range files {
			if _, ok := configFile(f.Name()); ok {
				read(check, filepath.Join(path, f.Name()))
			}
		}
	}
	return documents, problems
}

// configFile returns the name of a YAML file without its ending. Hidden files
// are not read: a mounted ConfigMap has some.
func configFile(name string) (base string, ok bool) {
	ext := filepath.Ext(name)
	return strings.TrimSuffix(name, ext), (ext == ".yaml" || ext == ".yml") && !strings.HasPrefix(name, ".")
}

func readFile(check, path string) (*document, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxFile {
		return nil, fmt.Errorf("the file has %d bytes: expected at most %d", info.Size(), maxFile)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	return readDocument(check, "file "+path, text)
}

// static returns the instances of a document that watches nothing in
// particular.
func (d *document) static(env func(string) (string, bool)) ([]*Instance, error) {
	return d.resolve(&variables{env: env}, fetch.Access{File: true})
}

// resolve makes instances of a document, with its template variables replaced.
func (d *document) resolve(v *variables, access fetch.Access) ([]*Instance, error) {
	initConfig, err := v.replaceAll(d.Init)
	if err != nil {
		return nil, fmt.Errorf("init_config: %w", err)
	}
	var out []*Instance
	for n, values := range d.Instances {
		replaced, err := v.replaceAll(values)
		if err != nil {
			return nil, fmt.Errorf("instance %d: %w", n+1, err)
		}
		out = append(out, &Instance{Check: d.check, Source: d.source, Init: initConfig, Values: replaced, Access: access})
	}
	return out, nil
}

// watches reports whether the document is for containers of that image.
func (d *document) watches(image string) bool {
	name, _, _ := strings.Cut(image, "@")
	short := name[strings.LastIndexByte(name, '/')+1:]
	if colon := strings.IndexByte(short, ':'); colon >= 0 {
		name, short = name[:len(name)-len(short)+colon], short[:colon]
	}
	return slices.Contains(d.Identifiers, short) || slices.Contains(d.Identifiers, name)
}
