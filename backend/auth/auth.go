// Package auth checks the API and application keys that Datadog's clients send.
//
// It owns which keys are valid, how a request carries them, and the refusal. It
// keeps keys only as SHA-256 sums, compares in constant time, and never writes
// one to a log, an error or a metric. What a key may do beyond being valid is
// not its concern.
package auth

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"
)

// Errors of a check, with the texts of Datadog's answers.
var (
	ErrMissing   = errors.New("API key required")
	ErrForbidden = errors.New("Forbidden") // Datadog's own word, sent as it is
)

// maxKeyFile bounds a mounted Secret; a larger file is not a list of keys.
const maxKeyFile = 1 << 20

// Source says where the keys of one kind come from. Both parts add up.
type Source struct {
	Keys []string
	// Files hold keys, one or more a line; they are read again when they
	// change, as mounted Secrets do. A directory stands for its files.
	Files []string
}

// Keys is a set of valid keys. Its methods may be called concurrently.
type Keys struct {
	fixed []sum
	files []string
	now   func() time.Time

	mu     sync.RWMutex // guards what follows
	read   []sum
	looked time.Time
	stamp  string // of the files as they were read
}

type sum [sha256.Size]byte

// New returns the keys of src. It reads the files, and fails when one cannot be
// read or when there is no key at all: nobody could be let in.
func New(kind string, src Source) (*Keys, error) {
	k := &Keys{fixed: sums(src.Keys), files: src.Files, now: time.Now}
	if err := k.reload(); err != nil {
		return nil, fmt.Errorf("read %s keys: %w", kind, err)
	}
	if len(k.fixed)+len(k.read) == 0 {
		return nil, fmt.Errorf("no %s key is set", kind)
	}
	return k, nil
}

// Valid reports whether key is one of k. Its time does not depend on how much
// of a key is right, nor on which key it is.
func (k *Keys) Valid(key string) bool {
	k.refresh()
	got := sha256.Sum256([]byte(key))
	k.mu.RLock()
	defer k.mu.RUnlock()
	ok := 0
	for _, list := range [2][]sum{k.fixed, k.read} {
		for i := range list {
			ok |= subtle.ConstantTimeCompare(list[i][:], got[:])
		}
	}
	return ok == 1
}

// refresh reads the files again if they changed, at most every five seconds. A
// file that cannot be read leaves the keys as they are: a Secret that is being
// replaced must not lock everybody out.
func (k *Keys) refresh() {
	if len(k.files) == 0 {
		return
	}
	now := k.now()
	k.mu.RLock()
	fresh := now.Sub(k.looked) < 5*time.Second
	k.mu.RUnlock()
	if !fresh {
		_ = k.reload()
	}
}

func (k *Keys) reload() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.looked = k.now()
	paths, stamp, err := list(k.files)
	if err != nil || stamp == k.stamp {
		return err
	}
	var read []string
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if len(text) > maxKeyFile {
			return fmt.Errorf("%s is larger than %d bytes: expected a list of keys", path, maxKeyFile)
		}
		for field := range bytes.FieldsSeq(text) {
			read = append(read, string(field))
		}
	}
	k.read, k.stamp = sums(read), stamp
	return nil
}

// list returns the key files and a text that changes when they do.
func list(files []string) (paths []string, stamp string, err error) {
	var b strings.Builder
	for _, path := range files {
		info, err := os.Stat(path)
		if err != nil {
			return nil, "", err
		}
		if !info.IsDir() {
			paths = append(paths, path)
			fmt.Fprintln(&b, path, info.Size(), info.ModTime().UnixNano())
			continue
		}
		entries, err := os.ReadDir(path)
		if err != nil {
			return nil, "", err
		}
		for _, e := range entries {
			// Secret volumes keep their versions in directories named "..…".
			full := path + "/" + e.Name()
			info, err := os.Stat(full)
			if err != nil || info.IsDir() || strings.HasPrefix(e.Name(), ".") {
				continue
			}
			paths = append(paths, full)
			fmt.Fprintln(&b, full, info.Size(), info.ModTime().UnixNano())
		}
	}
	return paths, b.String(), nil
}

func sums(keys []string) []sum {
	out := make([]sum, 0, len(keys))
	for _, key := range keys {
		if key != "" {
			out = append(out, sha256.Sum256([]byte(key)))
		}
	}
	return out
}

// Checker checks the keys of requests.
type Checker struct {
	API *Keys // required by every route
	App *Keys // required by what reads data
}

// Intake checks that the request carries a valid API key, in the header
// DD-API-KEY or the query parameter api_key. It returns ErrMissing or
// ErrForbidden.
func (c *Checker) Intake(r *http.Request) error {
	key := pick(r, "DD-API-KEY", "api_key")
	switch {
	case key == "":
		return ErrMissing
	case !c.API.Valid(key):
		return ErrForbidden
	}
	return nil
}

// Read checks that the request carries a valid API key and a valid application
// key, in the header DD-APPLICATION-KEY or the query parameter application_key.
// It returns ErrForbidden.
func (c *Checker) Read(r *http.Request) error {
	api := c.Intake(r)
	app := pick(r, "DD-APPLICATION-KEY", "application_key")
	if app == "" || !c.App.Valid(app) || api != nil {
		return ErrForbidden
	}
	return nil
}

// pick returns the header, or else the query parameter.
func pick(r *http.Request, header, param string) string {
	if v := r.Header.Get(header); v != "" {
		return strings.TrimSpace(v)
	}
	return r.URL.Query().Get(param)
}
