package host

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var rewrite = flag.Bool("rewrite", false, "write what is into testdata/*.want, to be read and explained")

// Each saved rule set in testdata has beside it the script that must come out.
func TestRemoval(t *testing.T) {
	files, err := filepath.Glob("testdata/*.rules")
	if err != nil || len(files) == 0 {
		t.Fatalf("no saved rule sets: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			saved := read(t, file)
			var keep []string
			if first, _, _ := strings.Cut(saved, "\n"); strings.HasPrefix(first, "# keep ") {
				keep = strings.Fields(first)[2:]
			}
			got := removal(saved, keep)
			wantFile := strings.TrimSuffix(file, ".rules") + ".want"
			if *rewrite {
				if err := os.WriteFile(wantFile, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if diff := cmp.Diff(read(t, wantFile), got); diff != "" {
				t.Errorf("script differs (-want +got):\n%s", diff)
			}
		})
	}
}

func TestOurChains(t *testing.T) {
	got := ourChains(read(t, "testdata/node.rules"), []string{"CNI-OTHER"})
	want := []string{"CNI-DN-0123456789abcdef", "CNI-HOSTPORT-DNAT", "CNI-f00d", "KELPIE-LAB", "KUBE-MARK-MASQ", "KUBE-SERVICES", "KUBE-SVC-X"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("chains differ (-want +got):\n%s", diff)
	}
}

func TestSplitKeepsCommentsWhole(t *testing.T) {
	got := split(`-A POSTROUTING -m comment --comment "a \" -j KUBE-X b" -j "" DROP`)
	want := []string{"-A", "POSTROUTING", "-m", "comment", "--comment", `a " -j KUBE-X b`, "-j", "", "DROP"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("words differ (-want +got):\n%s", diff)
	}
}

func read(t *testing.T, file string) string {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
