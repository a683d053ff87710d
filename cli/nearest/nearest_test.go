package nearest

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestTo(t *testing.T) {
	have := []string{"flask.request.rate", "flask.request.duration", "nginx.net.request_per_s", "flask.request.rat", "kelpie.points"}
	for _, c := range []struct {
		name, want string
		n          int
	}{
		{"flask.request.rates", "flask.request.rate flask.request.rat", 2},
		{"Flask.Request.Rate", "flask.request.rate flask.request.rat", 2},
		{"request", "flask.request.duration flask.request.rat flask.request.rate nginx.net.request_per_s", 9},
		{"something.else.entirely", "", 3},
		{"kelpie.point", "kelpie.points", 3},
	} {
		if d := cmp.Diff(c.want, strings.Join(To(c.name, have, c.n), " ")); d != "" {
			t.Errorf("To(%q) (-want +got)\n%s", c.name, d)
		}
	}
}
