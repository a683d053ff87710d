package fetch

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"os"
	"time"
)

// URL checks the URL of a page and returns it. key is the instance's key that
// holds it, for the error.
func URL(key, text string) (*url.URL, error) {
	if text == "" {
		return nil, fmt.Errorf("key %q is missing: expected the URL of the page", key)
	}
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("key %q: expected a URL such as http://%%%%host%%%%:8080/metrics", key)
	}
	return u, nil
}

func (c *Config) timeout() time.Duration {
	if c.Timeout == 0 {
		return defaultTimeout
	}
	return time.Duration(min(c.Timeout, maxTimeout.Seconds()) * float64(time.Second))
}

func (c *Config) validate() error {
	if c.Timeout < 0 {
		return errors.New(`key "timeout": expected seconds, more than 0`)
	}
	if t := c.AuthToken; t != nil {
		if t.Reader.Type != "file" || t.Reader.Path == "" {
			return errors.New(`key "auth_token": expected a reader of type file with a path`)
		}
		if t.Writer.Type != "header" {
			return errors.New(`key "auth_token": expected a writer of type header`)
		}
	}
	return nil
}

func (c *Config) tls() (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: c.TLSServerName}
	config.InsecureSkipVerify = c.TLSVerify != nil && !*c.TLSVerify //nolint:gosec // the user's own switch, off by default
	if c.TLSCACert != "" {
		pem, err := os.ReadFile(c.TLSCACert)
		if err != nil {
			return nil, fmt.Errorf("key %q: %w", "tls_ca_cert", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("key %q: %s holds no PEM certificate", "tls_ca_cert", c.TLSCACert)
		}
	}
	if c.TLSCert != "" {
		key := c.TLSPrivateKey
		if key == "" {
			key = c.TLSCert
		}
		pair, err := tls.LoadX509KeyPair(c.TLSCert, key)
		if err != nil {
			return nil, fmt.Errorf("keys %q and %q: %w", "tls_cert", "tls_private_key", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}
