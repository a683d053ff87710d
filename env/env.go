// Package env reads typed settings from environment variables.
//
// It owns how Datadog's agents spell a boolean, a list or a duration, and it
// collects every bad value instead of stopping at the first. It does not know
// any setting's name, default or meaning: those stand in each role's Config.
package env

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// A Reader looks settings up and remembers what was wrong with them. Each
// method takes a default and the variable's names; the first name that is set
// to more than spaces wins. Empty means unset, as Helm charts render an unset
// value so, except to StringOrEmpty. The zero Reader is not usable; see New.
type Reader struct {
	lookup func(string) (string, bool)
	errs   []error
}

// New returns a Reader over lookup, usually os.LookupEnv.
func New(lookup func(string) (string, bool)) *Reader { return &Reader{lookup: lookup} }

// Err joins an error for every value that could not be used, or is nil. The
// errors name the variable and what it should hold, and never its value, which
// may be a secret in the wrong place.
func (r *Reader) Err() error { return errors.Join(r.errs...) }

// Fail adds err, if there is one, to what Err returns.
func (r *Reader) Fail(err error) {
	if err != nil {
		r.errs = append(r.errs, err)
	}
}

// String returns a text, trimmed.
func (r *Reader) String(def string, names ...string) string {
	if _, v := r.find(names); v != "" {
		return v
	}
	return def
}

// StringOrEmpty returns the text of name, trimmed, also when that is "": for a
// setting that the empty text turns off.
func (r *Reader) StringOrEmpty(def, name string) string {
	if v, ok := r.lookup(name); ok {
		return strings.TrimSpace(v)
	}
	return def
}

// Bool returns a boolean in Go's syntax: 1, t, true, 0, f, false in any case.
func (r *Reader) Bool(def bool, names ...string) bool {
	return parse(r, def, names, "true or false", func(s string) (bool, error) {
		return strconv.ParseBool(strings.ToLower(s))
	})
}

// Int returns a decimal integer.
func (r *Reader) Int(def int, names ...string) int {
	return parse(r, def, names, "a whole number", strconv.Atoi)
}

// Float returns a decimal number, neither NaN nor an infinity.
func (r *Reader) Float(def float64, names ...string) float64 {
	return parse(r, def, names, "a number", func(s string) (float64, error) {
		f, err := strconv.ParseFloat(s, 64)
		if err == nil && (math.IsNaN(f) || math.IsInf(f, 0)) {
			err = errors.New("not finite")
		}
		return f, err
	})
}

// Seconds returns a duration: bare seconds as Datadog writes them ("30"), or Go's
// syntax ("1m30s"). It is never negative.
func (r *Reader) Seconds(def time.Duration, names ...string) time.Duration {
	return parse(r, def, names, `seconds ("30") or a duration ("1m30s"), not negative`, func(s string) (time.Duration, error) {
		d, err := time.ParseDuration(s)
		if n, ferr := strconv.ParseFloat(s, 64); ferr == nil {
			d, err = time.Duration(n*float64(time.Second)), nil
		}
		if err == nil && d < 0 {
			err = errors.New("negative")
		}
		return d, err
	})
}

// List returns the items of a list separated by spaces or commas, or written as
// a JSON array of strings. Unset and empty are nil.
func (r *Reader) List(names ...string) []string {
	return parse(r, nil, names, "words separated by spaces or commas, or a JSON array of strings", func(s string) ([]string, error) {
		if strings.HasPrefix(s, "[") {
			var out []string
			err := json.Unmarshal([]byte(s), &out)
			return out, err
		}
		return strings.FieldsFunc(s, func(c rune) bool { return c == ' ' || c == ',' || c == '\n' || c == '\t' }), nil
	})
}

// find returns the first of names that is not empty.
func (r *Reader) find(names []string) (name, value string) {
	for _, name := range names {
		if v, _ := r.lookup(name); strings.TrimSpace(v) != "" {
			return name, strings.TrimSpace(v)
		}
	}
	return "", ""
}

// parse reads one setting.
func parse[T any](r *Reader, def T, names []string, want string, f func(string) (T, error)) T {
	name, s := r.find(names)
	if s == "" {
		return def
	}
	v, err := f(s)
	if err != nil {
		r.errs = append(r.errs, fmt.Errorf("environment variable %s: expected %s", name, want))
		return def
	}
	return v
}
