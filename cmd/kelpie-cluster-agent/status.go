package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"kelpie.dev/kelpie/clusteragent"
	"kelpie.dev/kelpie/clusteragent/source"
	"kelpie.dev/kelpie/health"
)

// local returns the address of this pod's own health port.
func local() string {
	return net.JoinHostPort("127.0.0.1", cmp.Or(os.Getenv("DD_HEALTH_PORT"), "5556"))
}

func statusCommand() *cobra.Command {
	var addr string
	var asJSON bool
	c := &cobra.Command{
		Use: "status", Short: "Show the metrics in use, their values and what is wrong with them", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var s clusteragent.Status
			if err := health.Fetch(cmd.Context(), addr, "/status", &s); err != nil {
				return err
			}
			if asJSON {
				enc := json.NewEncoder(cmd.OutOrStdout())
				enc.SetIndent("", "  ")
				return enc.Encode(s)
			}
			return printStatus(cmd.OutOrStdout(), s, time.Now())
		},
	}
	c.Flags().StringVar(&addr, "addr", local(), "health address of the cluster agent")
	c.Flags().BoolVarP(&asJSON, "json", "j", false, "print JSON")
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

// printStatus writes s as an operator reads it: the source first, as it explains
// most of what may be wrong below.
func printStatus(w io.Writer, s clusteragent.Status, now time.Time) error {
	var b strings.Builder
	ago := func(t time.Time) string {
		if t.IsZero() {
			return "never"
		}
		return now.Sub(t).Round(time.Second).String() + " ago"
	}
	fmt.Fprintf(&b, "Replica:       %s\nLeader:        %s\nDatadogMetric: %s\nServing:       %s\n",
		s.Replica, yes(s.Leader), yes(s.CRD), yes(s.Serving))
	if s.Registration != "" {
		fmt.Fprintf(&b, "APIService:    %s\n", s.Registration)
	}
	switch {
	case s.Certificate != "":
		fmt.Fprintf(&b, "Certificate:   %s\n", s.Certificate)
	case !s.CertEnds.IsZero():
		fmt.Fprintf(&b, "Certificate:   ends %s\n", s.CertEnds.UTC().Format(time.DateOnly))
	}
	for _, src := range append([]source.Status{s.Source}, s.OtherSources...) {
		printSource(&b, src, ago)
	}
	if s.Shadow != nil {
		fmt.Fprintf(&b, "Shadow:        %s\n", verdicts(s.Shadow.Summary))
		printSource(&b, s.Shadow.Source, ago)
	}
	fmt.Fprintf(&b, "\nMetrics: %d\n", len(s.Metrics))
	tw := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	if len(s.Metrics) > 0 {
		_, _ = fmt.Fprintln(tw, "METRIC\tVALUE\tAGE\tVALID\tREFERENCES\tQUERY\tERROR")
	}
	for _, m := range s.Metrics {
		age := "-"
		if !m.At.IsZero() {
			age = (time.Duration(m.Age) * time.Second).String()
		}
		value := cmp.Or(m.Value, "-")
		if m.StandsIn {
			value += " (stands in)"
		}
		_, _ = fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", m.Metric, value, age, yes(m.Valid),
			cmp.Or(strings.Join(m.References, ", "), "-"), cmp.Or(m.Query, "-"), cmp.Or(m.Error, "-"))
	}
	if err := tw.Flush(); err != nil { // to memory: it holds what the writes above met
		return err
	}
	for _, m := range s.Metrics {
		for _, text := range m.Advice {
			fmt.Fprintf(&b, "\nAdvice on %s, to %s\n", m.Metric, text)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// printSource writes the health of one source.
func printSource(b *strings.Builder, s source.Status, ago func(time.Time) string) {
	how := fmt.Sprintf("polled every %gs", s.Period)
	switch {
	case s.Streaming:
		how = "values are pushed; otherwise " + how
	case s.StreamError != "":
		how += ", as there is no value stream: " + s.StreamError
	}
	name := s.URL
	if s.Name != "" {
		name = fmt.Sprintf("%s (%s)", s.URL, s.Name)
	}
	fmt.Fprintf(b, "Source:        %s\n  queries:      %d, %s\n  last success: %s\n", name, s.Queries, how, ago(s.LastSuccess))
	for _, e := range s.Endpoints {
		used := ""
		if e.Used {
			used = ", used now"
		}
		fmt.Fprintf(b, "  endpoint:     %s: %s%s; last success: %s, last failure: %s\n", e.URL, e.Status, used, ago(e.LastSuccess), ago(e.LastFailure))
	}
	if s.LastError != "" {
		fmt.Fprintf(b, "  last error:   %s: %s\n", ago(s.LastErrorAt), s.LastError)
	}
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
