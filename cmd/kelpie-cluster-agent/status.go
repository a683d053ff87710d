package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"kelpie.dev/kelpie/cli/served"
	"kelpie.dev/kelpie/health"
)

// local returns the address of this pod's own health port.
func local() string {
	return net.JoinHostPort("127.0.0.1", cmp.Or(os.Getenv("DD_HEALTH_PORT"), "5556"))
}

func statusCommand() *cobra.Command {
	var addr, out string
	var asJSON bool
	c := &cobra.Command{
		Use: "status", Short: "Show the metrics in use, their values and what is wrong with them, the worst first", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if out != "table" && out != "wide" && out != "json" {
				return fmt.Errorf("output %q: expected table, wide or json", out)
			}
			var raw json.RawMessage
			if err := health.Fetch(cmd.Context(), addr, "/status", &raw); err != nil {
				return err
			}
			w := cmd.OutOrStdout()
			if asJSON || out == "json" {
				var b bytes.Buffer
				if err := json.Indent(&b, raw, "", "  "); err != nil {
					return fmt.Errorf("indent the status: %w", err)
				}
				_, err := fmt.Fprintln(w, b.String())
				return err
			}
			width := served.Width(w)
			if out == "wide" {
				width = 0
			}
			return printStatus(w, raw, width, time.Now())
		},
	}
	c.Flags().StringVar(&addr, "addr", local(), "health address of the cluster agent")
	c.Flags().StringVarP(&out, "output", "o", "table", "table, wide with queries and without bound, or json for machines")
	c.Flags().BoolVarP(&asJSON, "json", "j", false, "the same as -o json")
	return c
}

func healthCommand() *cobra.Command {
	var addr string
	c := &cobra.Command{
		Use: "health", Short: "Exit 0 if the cluster agent is live and ready", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var h health.Health
			err := health.Fetch(cmd.Context(), addr, "/health", &h)
			if h.Role != "" {
				if _, werr := fmt.Fprintf(cmd.OutOrStdout(), "live: %s\nready: %s\n", h.Live, h.Ready); werr != nil {
					return werr
				}
			}
			return err
		},
	}
	c.Flags().StringVar(&addr, "addr", local(), "health address of the cluster agent")
	return c
}

// printStatus writes a status as an operator reads it: the sources before the
// metrics, as they explain most of what may be wrong below.
func printStatus(w io.Writer, raw []byte, width int, now time.Time) error {
	var s served.Status
	if err := json.Unmarshal(raw, &s); err != nil {
		return fmt.Errorf("read the status: %w", err)
	}
	var b strings.Builder
	row := func(name, text string) { fmt.Fprintf(&b, "%-14s %s\n", name, text) }
	row("Replica:", s.Replica)
	switch {
	case s.Leader:
		row("Leader:", "this replica")
	case s.LeaderName != "":
		row("Leader:", s.LeaderName)
	default:
		row("Leader:", "NONE that this replica knows of")
	}
	if s.Source.URL == "" {
		row("Serving:", "no: external metrics are switched off")
	} else {
		printMetrics(&b, &s, row, served.Table{Rows: s.Metrics, Now: now, Width: width})
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func printMetrics(b *strings.Builder, s *served.Status, row func(name, text string), t served.Table) {
	row("DatadogMetric:", yes(s.CRD))
	row("Serving:", yes(s.Serving))
	row("APIService:", cmp.Or(s.Registration, "registered to this installation"))
	row("Certificate:", cmp.Or(served.Certificate(s.Certificate, s.CertEnds, t.Now), "none yet"))
	for _, src := range append([]served.Source{s.Source}, s.OtherSources...) {
		name := "Source:"
		for _, line := range src.Lines(t.Now) {
			row(name, line)
			name = ""
		}
	}
	if s.Shadow != nil {
		row("Shadow:", s.Shadow.Text())
		for _, line := range s.Shadow.Source.Lines(t.Now) {
			row("", line)
		}
	}
	row("Metrics:", served.Summary(s.Metrics))
	b.WriteByte('\n')
	t.Lines(b)
	t.Words(b)
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
