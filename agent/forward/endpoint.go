package forward

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"strings"
	"sync"
)

// An Endpoint is one intake and one key for it.
type Endpoint struct {
	URL    string // base, such as https://app.agent.datadoghq.com; never rewritten
	APIKey string
	// APIKeyFile is a file that holds the key, which may change while the
	// agent runs. It is read before each request; APIKey, if there is one, is
	// used as long as it cannot be.
	APIKeyFile string
}

// Validate says what of e cannot be used, without showing a key.
func (e Endpoint) Validate() error {
	u, err := url.Parse(e.URL)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return fmt.Errorf("intake URL %q: expected http://host or https://host", redactURL(e.URL))
	}
	if e.APIKey == "" && e.APIKeyFile == "" {
		return fmt.Errorf("no API key for intake %s", redactURL(e.URL))
	}
	if err := checkKey(e.APIKey); err != nil {
		return fmt.Errorf("API key for intake %s %w", redactURL(e.URL), err)
	}
	return nil
}

// checkKey refuses what cannot stand in a header.
func checkKey(key string) error {
	if strings.ContainsFunc(key, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return errors.New("holds a space, a line break or a non-ASCII character")
	}
	return nil
}

// redactURL returns raw without a password and without a query, in which
// people put keys.
func redactURL(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return "(not a URL)"
	}
	u.RawQuery, u.Fragment = "", ""
	return u.Redacted()
}

// fingerprint tells keys apart without showing any part of them. A person gets
// it by printf %s "$DD_API_KEY" | sha256sum.
func fingerprint(key string) string { return "sha256:" + digest(key)[:6] }

func digest(parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\n")))
	return hex.EncodeToString(sum[:])
}

// label names the endpoint in metrics. It stays when a key's file changes.
func (e Endpoint) label() string {
	if e.APIKeyFile != "" {
		return redactURL(e.URL) + " file:" + e.APIKeyFile
	}
	return redactURL(e.URL) + " " + fingerprint(e.APIKey)
}

// directory names the endpoint's part of the spool, by the intake and by the
// key or the key's file: what waits for one organization never goes to another.
// intake is the part of the name that all keys of the intake share.
func (e Endpoint) directory() (intake, whole string) {
	u, err := url.Parse(e.URL)
	if err != nil {
		u = &url.URL{}
	}
	host := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '.' || r == '-' {
			return r
		}
		return '_'
	}, strings.ToLower(u.Host))
	base := strings.TrimSuffix(e.URL, "/")
	intake = host[:min(len(host), 100)] + "-" + digest(base)[:8] + "-"
	if e.APIKeyFile != "" {
		return intake, intake + digest(base, "file", e.APIKeyFile)[:8]
	}
	return intake, intake + digest(base, "key", e.APIKey)[:8]
}

// apiKey is an endpoint's key, which may stand in a file.
type apiKey struct {
	file string

	mu   sync.Mutex
	last string // that could be read
}

// maxKeyFile is the most that is read of a key's file, in bytes.
const maxKeyFile = 4096

// read returns the key. While its file is missing, empty or unusable, as it may
// be for a moment when it is replaced, the last key goes on.
func (k *apiKey) read() (string, error) {
	if k.file == "" {
		return k.last, nil
	}
	key, err := readKeyFile(k.file)
	k.mu.Lock()
	defer k.mu.Unlock()
	if err == nil {
		k.last = key
	}
	if k.last == "" {
		return "", err
	}
	return k.last, nil
}

func readKeyFile(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("read the API key: %w", err)
	}
	defer func() { _ = f.Close() }()
	text, err := io.ReadAll(io.LimitReader(f, maxKeyFile))
	if err != nil {
		return "", fmt.Errorf("read the API key: %w", err)
	}
	key := strings.TrimSpace(string(text))
	if key == "" {
		return "", fmt.Errorf("read the API key: %s is empty", path)
	}
	if err := checkKey(key); err != nil {
		return "", fmt.Errorf("read the API key: %s %w", path, err)
	}
	return key, nil
}

// fingerprint is that of the key last used.
func (k *apiKey) fingerprint() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.last == "" {
		return "none yet"
	}
	return fingerprint(k.last)
}
