package cli

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"kelpie.dev/kelpie/cli/served"
)

// print writes the status on one screen, for people.
func (s *status) print(w io.Writer, wide bool) error {
	var b strings.Builder
	tw := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) {
		_, _ = fmt.Fprintf(tw, "%s\t%s\n", name, fmt.Sprintf(format, args...))
	}
	chart := ""
	if s.Chart != "" {
		chart = ", chart " + s.Chart
	}
	row("release", "%s in namespace %s%s", s.Release, s.Namespace, chart)
	if s.Agents == nil {
		row("agents", "none installed")
	} else {
		row("agents", "%s", s.Agents)
	}
	s.printBackend(row)
	s.printClusterAgent(row)
	s.printAPIService(row)
	t := served.Table{Rows: s.rows(), Now: s.At}
	if !wide {
		t.Width = served.Width(w)
	}
	row("metrics", "%s", served.Summary(t.Rows))
	_ = tw.Flush() // a Builder accepts all
	if s.MetricsError != "" {
		fmt.Fprintf(&b, "\nThe list below is not complete: %s\n", s.MetricsError)
	}
	b.WriteByte('\n')
	t.Lines(&b)
	t.Words(&b)
	_, err := io.WriteString(w, b.String())
	return err
}

func (w *workload) String() string {
	return fmt.Sprintf("%d of %d ready (%s)", w.Ready, w.Desired, w.Name)
}

func (s *status) printBackend(row func(name, format string, args ...any)) {
	b := s.Backend
	if b == nil {
		row("backend", "none installed; values are read at %s", s.Source)
		return
	}
	if b.Error != "" {
		row("backend", "%s; its status cannot be read: %s", &b.workload, b.Error)
		return
	}
	row("backend", "%s, %d series of %d metrics, %.1f points/s", &b.workload, b.Series, b.MetricNames, b.PointsPerSecond)
	if b.LastError != "" {
		row("", "last error: %s", b.LastError)
	}
}

func (s *status) printClusterAgent(row func(name, format string, args ...any)) {
	c := &s.ClusterAgent
	leader := ""
	switch {
	case c.Leader != "":
		leader = ", leader " + c.Leader
	case c.Error == "": // else it is only not known
		leader = ", NO LEADER"
	}
	row("cluster agent", "%s%s", &c.workload, leader)
	if c.Error != "" {
		row("", "its status cannot be read: %s", c.Error)
	}
	for i := range c.Sources {
		name := "source"
		for _, line := range c.Sources[i].Lines(s.At) {
			row(name, "%s", line)
			name = ""
		}
	}
	if c.Shadow != "" {
		row("shadow", "%s", c.Shadow)
	}
	if text := served.Certificate(c.Certificate, c.CertEnds, s.At); text != "" {
		row("certificate", "%s", text)
	}
}

func (s *status) printAPIService(row func(name, format string, args ...any)) {
	switch a := &s.APIService; {
	case !a.Available:
		row("APIService", "NOT AVAILABLE: %s", a.Message)
	case s.ClusterAgent.Registration != "":
		row("APIService", "available, but %s", s.ClusterAgent.Registration)
	default:
		row("APIService", "available")
	}
}

// rows are the metrics as they are printed.
func (s *status) rows() []served.Metric {
	out := make([]served.Metric, len(s.Metrics))
	for i := range s.Metrics {
		m := &s.Metrics[i]
		out[i] = served.Metric{Metric: m.Name, Query: m.Query, Source: m.Source, State: m.State, Value: m.Value, Valid: m.Valid, StandsIn: m.StandsIn,
			Error: m.Error, Warning: m.Warning, References: m.References, Advice: m.Advice, Pushed: m.Pushed, NextAttempt: m.NextAttempt, BackOff: m.BackOff}
		if m.AgeSeconds != nil {
			out[i].At = s.At.Add(-time.Duration(*m.AgeSeconds * float64(time.Second)))
		}
	}
	return out
}
