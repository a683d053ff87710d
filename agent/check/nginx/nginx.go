// Package nginx is the check of nginx's stub_status page.
package nginx

import (
	"context"
	"errors"
	"net/url"

	"kelpie.dev/kelpie/agent/check"
	"kelpie.dev/kelpie/agent/check/fetch"
	"kelpie.dev/kelpie/metric"
)

// maxPage bounds the status page, which is about 100 bytes.
const maxPage = 64 << 10

// Kind is the check named nginx.
func Kind() check.Kind { return check.Kind{Name: "nginx", New: newCheck} }

type config struct {
	StatusURL     string `json:"nginx_status_url"` // of the stub_status page; required
	SSLValidation *bool  `json:"ssl_validation"`   // the older name of tls_verify
	User          string `json:"user"`             // the older name of username
	UsePlusAPI    bool   `json:"use_plus_api"`
	UseVTS        bool   `json:"use_vts"`
	fetch.Config
}

type nginx struct {
	url    *url.URL
	client *fetch.Client
}

func newCheck(i *check.Instance) (check.Check, error) {
	var c config
	if err := i.Decode(&c); err != nil {
		return nil, err
	}
	if c.UsePlusAPI || c.UseVTS {
		return nil, errors.New(`keys "use_plus_api" and "use_vts": only the stub_status page is read; nginx Plus and VTS export Prometheus metrics, which the openmetrics check reads`)
	}
	u, err := fetch.URL("nginx_status_url", c.StatusURL)
	if err != nil {
		return nil, err
	}
	if c.TLSVerify == nil {
		c.TLSVerify = c.SSLValidation
	}
	if c.Username == "" {
		c.Username = c.User
	}
	client, err := fetch.New(c.Config, i.Access)
	if err != nil {
		return nil, err
	}
	return &nginx{url: u, client: client}, nil
}

func (n *nginx) Close() { n.client.Close() }

// Run reads the page. nginx.net.*_per_s are changes per second, the rest levels.
func (n *nginx) Run(ctx context.Context, s *check.Sender) error {
	port := n.url.Port()
	if port == "" {
		port = map[string]string{"https": "443"}[n.url.Scheme]
	}
	if port == "" {
		port = "80"
	}
	tags := []string{"nginx_host:" + n.url.Hostname(), "port:" + port}
	page, _, err := n.client.Get(ctx, n.url.String(), "text/plain", maxPage)
	if err != nil {
		s.ServiceCheck("nginx.can_connect", metric.CheckCritical, err.Error(), tags...)
		return err
	}
	s.ServiceCheck("nginx.can_connect", metric.CheckOK, "", tags...)
	status, err := parse(page)
	if err != nil {
		return err
	}
	s.Gauge("nginx.net.connections", status.active)
	s.Rate("nginx.net.conn_opened_per_s", status.accepts)
	s.Rate("nginx.net.conn_dropped_per_s", status.accepts-status.handled)
	s.Rate("nginx.net.request_per_s", status.requests)
	s.Gauge("nginx.net.reading", status.reading)
	s.Gauge("nginx.net.writing", status.writing)
	s.Gauge("nginx.net.waiting", status.waiting)
	return nil
}
