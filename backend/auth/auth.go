// Package auth checks the API and application keys that Datadog's clients send.
//
// It owns which keys are valid, how a request carries them, and the refusal. It
// keeps keys only as SHA-256 sums, compares in constant time, and never writes
// one to a log, an error or a metric. What a scope opens is not its concern.
//
// # Key files
//
// A file holds keys, separated by white space. An application key may be
// followed, on its line, by what it may do; without that it may do everything:
//
//	0123456789abcdef0123456789abcdef01234567 scopes=timeseries_query,metrics_read
//	89abcdef0123456789abcdef0123456789abcdef
//
// "#" and what follows it on a line is a comment. See Scopes for the names.
package auth

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"log/slog"
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
	// Log is told of a file that changed and cannot be used; nil discards.
	Log *slog.Logger
}

// Keys is a set of valid keys. Its methods may be called concurrently.
type Keys struct {
	kind  string
	fixed []key
	files []string
	log   *slog.Logger
	now   func() time.Time

	mu     sync.RWMutex // guards what follows
	read   []key
	looked time.Time
	stamp  string // of the files as they were read
}

type sum [sha256.Size]byte

// A key is one valid key.
type key struct {
	sum    sum
	scopes []string // what it may do; nil means everything
}

func newKey(text string) key { return key{sum: sha256.Sum256([]byte(text))} }

// maxKey is the longest text, in bytes, that is looked at as a key. Datadog's
// have 32 and 40; what is longer is refused before it costs a sum.
const maxKey = 512

// New returns the keys of src. It reads the files, and fails when one cannot be
// read or when there is no key at all: nobody could be let in.
func New(kind string, src Source) (*Keys, error) {
	k := &Keys{kind: kind, files: src.Files, log: src.Log, now: time.Now}
	if k.log == nil {
		k.log = slog.New(slog.DiscardHandler)
	}
	for _, text := range src.Keys {
		if text != "" {
			k.fixed = append(k.fixed, newKey(text))
		}
	}
	if err := k.reload(); err != nil {
		return nil, fmt.Errorf("read %s keys: %w", kind, err)
	}
	if len(k.fixed)+len(k.read) == 0 {
		return nil, fmt.Errorf("no %s key is set", kind)
	}
	return k, nil
}

// Valid reports whether text is one of k. Its time does not depend on how much
// of a key is right, nor on which key it is.
func (k *Keys) Valid(text string) bool {
	_, ok := k.find(text)
	return ok
}

// find returns the key with the given text, in the time that Valid promises.
func (k *Keys) find(text string) (key, bool) {
	if len(text) > maxKey {
		return key{}, false
	}
	k.refresh()
	got := sha256.Sum256([]byte(text))
	k.mu.RLock()
	defer k.mu.RUnlock()
	at := -1
	for i := range k.fixed {
		at = subtle.ConstantTimeSelect(subtle.ConstantTimeCompare(k.fixed[i].sum[:], got[:]), i, at)
	}
	for i := range k.read {
		at = subtle.ConstantTimeSelect(subtle.ConstantTimeCompare(k.read[i].sum[:], got[:]), len(k.fixed)+i, at)
	}
	switch {
	case at < 0:
		return key{}, false
	case at < len(k.fixed):
		return k.fixed[at], true
	}
	return k.read[at-len(k.fixed)], true
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
	if fresh {
		return
	}
	if err := k.reload(); err != nil {
		k.log.Warn("cannot read changed keys, those read before stay", "kind", k.kind, "error", err)
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
	var read []key
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if len(text) > maxKeyFile {
			return fmt.Errorf("%s is larger than %d bytes: expected a list of keys", path, maxKeyFile)
		}
		keys, err := parseKeys(string(text), k.kind == Application)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		read = append(read, keys...)
	}
	k.read, k.stamp = read, stamp
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
