package served

import "testing"

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
		if got := Hint(c.references); got != c.want {
			t.Errorf("Hint(%q) = %q, want %q", c.references, got, c.want)
		}
	}
}
