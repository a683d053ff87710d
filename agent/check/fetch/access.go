package fetch

import (
	"fmt"
	"net/netip"
	"slices"
	"syscall"
)

// Access is what the author of a configuration may do. A file of the agent's
// host may do everything. A pod's annotation is written by whoever may create
// pods, who must not borrow the agent's files, its tokens or its place in the
// network: it may neither name a file nor use a proxy, and it may only ask the
// pod itself. The zero value may do nothing.
type Access struct {
	File bool         // configured by a file of the host
	Pod  []netip.Addr // addresses that a pod's configuration may ask
	Any  bool         // pods may ask any address, but the agent's own and those of the link
}

// permit refuses the keys that only a file may have.
func (a Access) permit(c *Config) error {
	if a.File {
		return nil
	}
	for _, k := range []struct {
		key string
		set bool
	}{
		{"auth_token", c.AuthToken != nil},
		{"bearer_token_auth", c.BearerTokenAuth},
		{"bearer_token_path", c.BearerTokenPath != ""},
		{"tls_ca_cert", c.TLSCACert != ""},
		{"tls_cert", c.TLSCert != ""},
		{"tls_private_key", c.TLSPrivateKey != ""},
	} {
		if k.set {
			return fmt.Errorf("key %q reads a file of the agent, which a pod's annotation may not: put the check into a file of conf.d with ad_identifiers", k.key)
		}
	}
	return nil
}

// control is asked for every connection, after names are resolved and
// redirects followed.
func (a Access) control(_, address string, _ syscall.RawConn) error {
	if a.File {
		return nil
	}
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("connect to %q: not an address: %w", address, err)
	}
	ip := ap.Addr().Unmap().WithZone("")
	if slices.Contains(a.Pod, ip) {
		return nil
	}
	if !a.Any {
		return fmt.Errorf("%s is not an address of the pod, and a pod's annotation may ask only the pod itself: use %%%%host%%%%, put the check into a file of conf.d, or set KELPIE_CHECKS_ANY_TARGET=true for the agent", ip)
	}
	if ip.IsLoopback() || ip.IsLinkLocalUnicast() || ip.IsLinkLocalMulticast() || ip.IsUnspecified() {
		return fmt.Errorf("%s is the agent's own host or link, which a pod's annotation may not ask", ip)
	}
	return nil
}
