package cli

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"kelpie.dev/kelpie/cli/served"
	"kelpie.dev/kelpie/clusteragent"
)

var rewrite = flag.Bool("rewrite", false, "write what the status prints to its golden files")

// document is what a cluster agent in its test answered at /status. It must be
// one that today's cluster agent could write.
func document(t *testing.T) served.Status {
	t.Helper()
	raw, err := os.ReadFile("testdata/status/cluster_agent.json")
	if err != nil {
		t.Fatal(err)
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.DisallowUnknownFields()
	if err := dec.Decode(new(clusteragent.Status)); err != nil {
		t.Fatalf("the document is not a cluster agent's: %v", err)
	}
	var s served.Status
	if err := json.Unmarshal(raw, &s); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestStatusOfARealDocument(t *testing.T) {
	s := document(t)
	at := s.Source.LastSuccess.Add(4 * time.Second).UTC()
	st := &status{At: at, Namespace: "datadog", Release: "datadog-agent", Chart: "kelpie-0.1.0", Source: s.Source.URL,
		Agents:     &workload{"datadog-agent", 3, 3},
		APIService: apiServiceState{Available: true},
		ClusterAgent: agentState{workload: workload{"datadog-cluster-agent", 2, 2}, Leader: s.LeaderName, Source: s.Source.URL,
			Sources: []served.Source{s.Source}, CertEnds: s.CertEnds},
		Metrics: asSeen(s.Metrics, at)}
	var table, wide strings.Builder
	if err := st.print(&table, false); err != nil {
		t.Fatal(err)
	}
	if err := st.print(&wide, true); err != nil {
		t.Fatal(err)
	}
	machine, err := json.MarshalIndent(st, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	for name, got := range map[string]string{"table.txt": table.String(), "wide.txt": wide.String(), "kelpie.json": string(machine) + "\n"} {
		golden := filepath.Join("testdata/status", name)
		if *rewrite {
			if err := os.WriteFile(golden, []byte(got), 0o644); err != nil { //nolint:gosec // not a secret
				t.Fatal(err)
			}
			continue
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(want), got); diff != "" {
			t.Errorf("%s (-want +got, go test ./cli -rewrite mends it):\n%s", golden, diff)
		}
	}
}
