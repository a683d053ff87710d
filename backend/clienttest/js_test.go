package clienttest

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// KELPIE_DATADOG_JS is where scripts/datadog-js.sh has installed the client: the
// script prints it. testdata/client.golden is what the client is answered.
func TestJavaScriptClient(t *testing.T) {
	modules := os.Getenv("KELPIE_DATADOG_JS")
	if modules == "" {
		t.Skip(`KELPIE_DATADOG_JS is not set: KELPIE_DATADOG_JS="$(scripts/datadog-js.sh)" go test ./backend/clienttest/ tests with Datadog's JavaScript client`)
	}
	node, err := exec.LookPath("node")
	if err != nil {
		t.Skip("Node.js is not installed")
	}
	client, _ := start(t)
	script, err := os.ReadFile(filepath.Join("testdata", "client.js"))
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile(filepath.Join("testdata", "client.golden"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), node, "-e", string(script), modules, client.Cfg.Servers[0].URL, apiKey, appKey, strconv.FormatInt(bucket(), 10))
	cmd.Env = []string{"PATH=" + os.Getenv("PATH")} // no DD_ variables
	var out, complaints bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaints
	if err := cmd.Run(); err != nil {
		t.Fatalf("node: %v\n%s%s", err, &out, &complaints)
	}
	if d := cmp.Diff(strings.Split(string(want), "\n"), strings.Split(out.String(), "\n")); d != "" {
		t.Error(d)
	}
}
