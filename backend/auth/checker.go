package auth

import (
	"encoding/hex"
	"net/http"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
)

// Checker checks the keys of requests.
type Checker struct {
	API *Keys // required by every route
	App *Keys // required by what reads data

	refused *prometheus.CounterVec // nil counts nothing
}

// NewChecker returns a Checker that counts refusals in reg, by kind. However many
// keys are tried, it keeps nothing of them.
func NewChecker(api, app *Keys, reg prometheus.Registerer) *Checker {
	c := &Checker{API: api, App: app, refused: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "kelpie_backend_keys_refused_total",
		Help: "Requests refused for their keys: none, a wrong API key, a wrong application key, or one without the scope.",
	}, []string{"kind"})}
	for _, kind := range []string{refusedMissing, refusedAPI, refusedApp, refusedScope} {
		c.refused.WithLabelValues(kind)
	}
	if reg != nil {
		reg.MustRegister(c.refused)
	}
	return c
}

// Kinds of refusals, as the counter's label has them.
const (
	refusedMissing = "missing"
	refusedAPI     = "api_key"
	refusedApp     = "application_key"
	refusedScope   = "scope"
)

// refuse counts a refusal and returns its error.
func (c *Checker) refuse(kind string, err error) error {
	if c.refused != nil {
		c.refused.WithLabelValues(kind).Inc()
	}
	return err
}

// A Grant is what a valid application key opens.
type Grant struct {
	// Key tells one application key from another. It is not the key, and safe to
	// show.
	Key string
}

// Intake checks that the request carries a valid API key, in the header
// DD-API-KEY or the query parameter api_key. It returns ErrMissing or
// ErrForbidden.
func (c *Checker) Intake(r *http.Request) error {
	text := pick(r, "DD-API-KEY", "api_key")
	switch {
	case text == "":
		return c.refuse(refusedMissing, ErrMissing)
	case !c.API.Valid(text):
		return c.refuse(refusedAPI, ErrForbidden)
	}
	return nil
}

// Read checks that the request carries a valid API key and a valid application
// key, in the header DD-APPLICATION-KEY or the query parameter application_key,
// whatever its scopes. It returns ErrForbidden.
func (c *Checker) Read(r *http.Request) error {
	_, err := c.Allow(r, "")
	return err
}

// Allow is Read for what needs a scope; "" needs none. It returns ErrForbidden
// or a *ScopeError.
func (c *Checker) Allow(r *http.Request, scope string) (Grant, error) {
	text := pick(r, "DD-APPLICATION-KEY", "application_key")
	app, known := c.App.find(text) // looked at in any case, so that time tells nothing
	switch {
	case c.Intake(r) != nil:
		return Grant{}, ErrForbidden // counted already
	case text == "":
		return Grant{}, c.refuse(refusedMissing, ErrForbidden)
	case !known:
		return Grant{}, c.refuse(refusedApp, ErrForbidden)
	}
	return c.grant(app, scope)
}

// AllowAlone is Allow for clients that can send one secret only: the application
// key is the password of basic authentication, whose user does not matter, or
// the bearer token. A request that has neither must pass Allow.
func (c *Checker) AllowAlone(r *http.Request, scope string) (Grant, error) {
	text, ok := bearer(r)
	if !ok {
		_, text, ok = r.BasicAuth()
	}
	if !ok {
		return c.Allow(r, scope)
	}
	app, known := c.App.find(text)
	if !known {
		return Grant{}, c.refuse(refusedApp, ErrForbidden)
	}
	return c.grant(app, scope)
}

func (c *Checker) grant(app key, scope string) (Grant, error) {
	if !app.allows(scope) {
		return Grant{}, c.refuse(refusedScope, &ScopeError{Scope: scope})
	}
	// A few bytes of the sum do not lead back to a key.
	return Grant{Key: hex.EncodeToString(app.sum[:6])}, nil
}

func bearer(r *http.Request) (string, bool) {
	kind, token, ok := strings.Cut(r.Header.Get("Authorization"), " ")
	return strings.TrimSpace(token), ok && strings.EqualFold(kind, "bearer")
}

// pick returns the header, or else the query parameter.
func pick(r *http.Request, header, param string) string {
	if v := r.Header.Get(header); v != "" {
		return strings.TrimSpace(v)
	}
	return r.URL.Query().Get(param)
}
