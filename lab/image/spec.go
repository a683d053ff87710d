package image

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"sigs.k8s.io/yaml"
)

// Spec describes an image of files. It has one layer.
type Spec struct {
	Name           string            `json:"name"`           // repository and tag, such as kelpie:dev; required
	Entrypoint     []string          `json:"entrypoint"`     // program and first arguments; empty leaves it to the pod
	User           string            `json:"user"`           // uid:gid; empty means root
	WorkingDir     string            `json:"workingDir"`     // empty means /
	Env            map[string]string `json:"env"`            // environment of the program
	Labels         map[string]string `json:"labels"`         // labels of the image
	Files          []File            `json:"files"`          // copied from the machine
	Symlinks       []Symlink         `json:"symlinks"`       // made in the image
	Directories    []Directory       `json:"directories"`    // made in the image; parents of files come by themselves
	CACertificates bool              `json:"caCertificates"` // adds /etc/ssl/certs/ca-certificates.crt
}

// File copies one file. From is relative to the spec's directory.
type File struct {
	From string `json:"from"`
	To   string `json:"to"`
	Mode Mode   `json:"mode"` // zero means 0644
}

// Symlink makes From a link that points to To.
type Symlink struct {
	From string `json:"from"`
	To   string `json:"to"`
}

// Directory makes an empty directory.
type Directory struct {
	Path  string `json:"path"`
	Mode  Mode   `json:"mode"`  // zero means 0755
	Owner string `json:"owner"` // uid:gid; empty means root
}

// Mode is a file mode, written in octal with or without quotes ("0755", 0755).
type Mode int64

// UnmarshalJSON reads the octal digits as they were written. YAML 1.1 has
// already turned an unquoted 0755 into 493, which is not accepted silently.
func (m *Mode) UnmarshalJSON(data []byte) error {
	text, quoted := strings.CutPrefix(string(data), `"`)
	if !quoted {
		return fmt.Errorf("mode %s: write it as a string of octal digits, such as \"0755\"", data)
	}
	n, err := strconv.ParseInt(strings.TrimSuffix(text, `"`), 8, 64)
	if err != nil || n < 0 || n > 0o7777 {
		return fmt.Errorf("mode %s: want octal digits up to 7777", data)
	}
	*m = Mode(n)
	return nil
}

// ReadSpec reads a spec file and makes the sources of its files absolute.
func ReadSpec(file string) (Spec, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return Spec{}, fmt.Errorf("read image spec: %w", err)
	}
	spec, err := ParseSpec(data)
	if err != nil {
		return Spec{}, fmt.Errorf("image spec %s: %w", file, err)
	}
	for i, f := range spec.Files {
		if !filepath.IsAbs(f.From) {
			spec.Files[i].From = filepath.Join(filepath.Dir(file), f.From)
		}
	}
	return spec, nil
}

// ParseSpec reads a spec and reports all that is wrong with it.
func ParseSpec(data []byte) (Spec, error) {
	var s Spec
	if err := yaml.UnmarshalStrict(data, &s); err != nil {
		return Spec{}, err
	}
	return s, s.validate()
}

func (s Spec) validate() error {
	var wrong []error
	if s.Name == "" {
		wrong = append(wrong, errors.New("name is required, such as kelpie:dev"))
	}
	if _, _, err := owner(s.User); err != nil {
		wrong = append(wrong, fmt.Errorf("user: %w", err))
	}
	seen := map[string]bool{}
	place := func(field, p string) {
		switch {
		case !path.IsAbs(p) || path.Clean(p) != p || p == "/":
			wrong = append(wrong, fmt.Errorf("%s: %q is not a clean absolute path in the image", field, p))
		case seen[p]:
			wrong = append(wrong, fmt.Errorf("%s: %s is there twice", field, p))
		}
		seen[p] = true
	}
	for i, f := range s.Files {
		place(fmt.Sprintf("files[%d].to", i), f.To)
		if f.From == "" {
			wrong = append(wrong, fmt.Errorf("files[%d].from is required", i))
		}
	}
	for i, l := range s.Symlinks {
		place(fmt.Sprintf("symlinks[%d].from", i), l.From)
		if l.To == "" {
			wrong = append(wrong, fmt.Errorf("symlinks[%d].to is required", i))
		}
	}
	for i, d := range s.Directories {
		place(fmt.Sprintf("directories[%d].path", i), d.Path)
		if _, _, err := owner(d.Owner); err != nil {
			wrong = append(wrong, fmt.Errorf("directories[%d].owner: %w", i, err))
		}
	}
	return errors.Join(wrong...)
}

// owner reads uid:gid; nothing means root.
func owner(s string) (uid, gid int, err error) {
	if s == "" {
		return 0, 0, nil
	}
	u, g, ok := strings.Cut(s, ":")
	uid, uidErr := strconv.Atoi(u)
	gid, gidErr := strconv.Atoi(g)
	if !ok || uidErr != nil || gidErr != nil || uid < 0 || gid < 0 {
		return 0, 0, fmt.Errorf("%q: want numbers uid:gid, such as 65532:65532", s)
	}
	return uid, gid, nil
}
