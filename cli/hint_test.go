package cli

import "testing"

func TestHint(t *testing.T) {
	for ref, want := range map[string]string{
		"hpa:test/web": "kelpie doctor hpa/web -n test",
		"test/web":     "kelpie doctor hpa/web -n test",
		"wpa:test/web": "kubectl describe wpa web -n test",
	} {
		if got := hint(ref); got != want {
			t.Errorf("hint(%q) = %q, want %q", ref, got, want)
		}
	}
}
