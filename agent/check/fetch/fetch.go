// Package fetch gets pages over HTTP for checks.
//
// It owns the settings that integrations share for a request (timeout, headers,
// credentials, TLS) and the limits of what the author of a configuration may
// do: see Access. It does not know what a page means.
package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
)

// Config are the keys of an instance about its requests, with the names that
// Datadog's integrations have for them. The zero value is usable.
type Config struct {
	Timeout       float64           `json:"timeout"` // seconds; 0 means 10
	Headers       map[string]string `json:"headers"`
	ExtraHeaders  map[string]string `json:"extra_headers"`
	Username      string            `json:"username"`
	Password      string            `json:"password"`
	SkipProxy     bool              `json:"skip_proxy"`
	TLSVerify     *bool             `json:"tls_verify"` // nil means true
	TLSCACert     string            `json:"tls_ca_cert"`
	TLSCert       string            `json:"tls_cert"`
	TLSPrivateKey string            `json:"tls_private_key"`
	TLSServerName string            `json:"tls_server_name"`
	AuthToken     *AuthToken        `json:"auth_token"`

	// The keys of the first OpenMetrics check, for a token in a file.
	BearerTokenAuth bool   `json:"bearer_token_auth"`
	BearerTokenPath string `json:"bearer_token_path"`
}

// AuthToken says where a token is read and where it goes.
type AuthToken struct {
	Reader struct {
		Type string `json:"type"` // file
		Path string `json:"path"`
	} `json:"reader"`
	Writer struct {
		Type        string `json:"type"` // header
		Name        string `json:"name"` // "" means Authorization
		Value       string `json:"value"`
		Placeholder string `json:"placeholder"` // in Value; "" means <TOKEN>
	} `json:"writer"`
}

const (
	defaultTimeout   = 10 * time.Second
	maxTimeout       = 5 * time.Minute
	maxToken         = 64 << 10
	serviceAccount   = "/var/run/secrets/kubernetes.io/serviceaccount/token" //nolint:gosec // a path, not a credential
	tokenPlaceholder = "<TOKEN>"
)

// Client gets pages. Make one with New.
type Client struct {
	c       Config
	http    *http.Client
	headers http.Header
}

// New returns a Client that keeps to a. It reads the certificates that c
// names; a token is read for each request, as tokens rotate.
func New(c Config, a Access) (*Client, error) {
	if err := a.permit(&c); err != nil {
		return nil, err
	}
	if err := c.validate(); err != nil {
		return nil, err
	}
	tlsConfig, err := c.tls()
	if err != nil {
		return nil, err
	}
	dialer := &net.Dialer{Timeout: defaultTimeout, Control: a.control}
	transport := &http.Transport{
		DialContext: dialer.DialContext, TLSClientConfig: tlsConfig, MaxIdleConns: 2, IdleConnTimeout: 90 * time.Second,
		MaxResponseHeaderBytes: 64 << 10,
	}
	if a.File && !c.SkipProxy {
		transport.Proxy = http.ProxyFromEnvironment
	}
	headers := http.Header{"User-Agent": {"kelpie-agent"}}
	for _, set := range []map[string]string{c.Headers, c.ExtraHeaders} {
		for name, value := range set {
			headers.Set(name, value)
		}
	}
	return &Client{c: c, headers: headers, http: &http.Client{Timeout: c.timeout(), Transport: transport}}, nil
}

// Close gives idle connections back.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// ErrTooLarge reports a page larger than the limit.
var ErrTooLarge = errors.New("the page is too large")

// Get returns a page of at most limit bytes and its media type. Any status but
// 200 is an error.
func (c *Client) Get(ctx context.Context, page, accept string, limit int64) (body []byte, mediaType string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, page, nil)
	if err != nil {
		return nil, "", fmt.Errorf("get %s: %w", Redact(page), err)
	}
	req.Header = c.headers.Clone()
	req.Header.Set("Accept", accept)
	if c.c.Username != "" || c.c.Password != "" {
		req.SetBasicAuth(c.c.Username, c.c.Password)
	}
	if err := c.authorize(req); err != nil {
		return nil, "", err
	}
	if host := req.Header.Get("Host"); host != "" {
		req.Host = host
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, "", clean(err, page)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		_, _ = io.CopyN(io.Discard, resp.Body, 4<<10) // so that the connection can be used again
		return nil, "", fmt.Errorf("get %s: HTTP %s", Redact(page), resp.Status)
	}
	body, err = io.ReadAll(io.LimitReader(resp.Body, limit+1))
	switch {
	case err != nil:
		return nil, "", fmt.Errorf("get %s: read the answer: %w", Redact(page), err)
	case int64(len(body)) > limit:
		return nil, "", fmt.Errorf("get %s: %w: more than %d bytes", Redact(page), ErrTooLarge, limit)
	}
	mediaType, _, _ = strings.Cut(resp.Header.Get("Content-Type"), ";")
	return body, strings.TrimSpace(mediaType), nil
}

// authorize adds the token that the configuration names.
func (c *Client) authorize(req *http.Request) error {
	path, name, value, placeholder := c.c.BearerTokenPath, "Authorization", "Bearer "+tokenPlaceholder, tokenPlaceholder
	switch t := c.c.AuthToken; {
	case t != nil:
		path = t.Reader.Path
		if t.Writer.Name != "" {
			name = t.Writer.Name
		}
		if t.Writer.Placeholder != "" {
			placeholder = t.Writer.Placeholder
		}
		value = placeholder
		if t.Writer.Value != "" {
			value = t.Writer.Value
		}
	case !c.c.BearerTokenAuth:
		return nil
	case path == "":
		path = serviceAccount
	}
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("read the token of the request: %w", err)
	}
	defer func() { _ = f.Close() }()
	token, err := io.ReadAll(io.LimitReader(f, maxToken))
	if err != nil {
		return fmt.Errorf("read the token of the request: %w", err)
	}
	req.Header.Set(name, strings.ReplaceAll(value, placeholder, strings.TrimSpace(string(token))))
	return nil
}

// Redact returns a URL without user name, password and query, which may hold
// secrets.
func Redact(page string) string {
	u, err := url.Parse(page)
	if err != nil {
		return "a URL that cannot be read"
	}
	u.User, u.RawQuery, u.Fragment = nil, "", ""
	return u.String()
}

// clean replaces the URL in an error of the HTTP client by its redacted form.
func clean(err error, page string) error {
	if wrapped, ok := errors.AsType[*url.Error](err); ok {
		err = wrapped.Err
	}
	return fmt.Errorf("get %s: %w", Redact(page), err)
}
