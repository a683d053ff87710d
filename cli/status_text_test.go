package cli

import (
	"strings"
	"testing"
)

func TestHint(t *testing.T) {
	for _, c := range []struct {
		references []string
		want       string
	}{
		{nil, ""},
		{[]string{"shop/web"}, "  find the mend: kelpie doctor hpa/web -n shop\n"},
		{[]string{"hpa:shop/web"}, "  find the mend: kelpie doctor hpa/web -n shop\n"},
		{[]string{"wpa:shop/web"}, "  find the mend: kubectl describe watermarkpodautoscaler/web -n shop\n"},
		{[]string{"wpa:shop/one", "shop/two"}, "  find the mend: kelpie doctor hpa/two -n shop\n"},
		{[]string{"nonsense"}, ""},
	} {
		if got := hint(c.references); got != c.want {
			t.Errorf("hint(%q) = %q, want %q", c.references, got, c.want)
		}
	}
}

func TestStatusShowsTheShadow(t *testing.T) {
	var b strings.Builder
	s := status{ClusterAgent: agentState{Source: "http://b", Shadow: "kelpie beside datadog: 4 of 5 queries agree"}}
	if err := s.print(&b); err != nil || !strings.Contains(b.String(), "shadow kelpie beside datadog: 4 of 5 queries agree") {
		t.Errorf("%v\n%s", err, b.String())
	}
}
