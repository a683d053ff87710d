package cli

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// print writes the status on one screen, for people.
func (s *status) print(w io.Writer) error {
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
	if s.APIService.Available {
		row("APIService", "available")
	} else {
		row("APIService", "NOT AVAILABLE: %s", s.APIService.Message)
	}
	row("metrics", "%d of %d are valid", s.valid(), len(s.Metrics))
	_ = tw.Flush() // a Builder accepts all
	s.printMetrics(&b)
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
	if c.Leader != "" {
		leader = ", leader " + c.Leader
	}
	row("cluster agent", "%s%s", &c.workload, leader)
	switch {
	case c.Error != "":
		row("", "its status cannot be read: %s", c.Error)
	case c.SourceError != "":
		row("", "source %s FAILING: %s", c.Source, c.SourceError)
	case c.Pushed:
		row("", "values are pushed by %s", c.Source)
	case c.Source != "":
		row("", "values are polled from %s", c.Source)
	}
	if c.Shadow != "" {
		row("", "shadow %s", c.Shadow)
	}
}

// valid counts the metrics that have a value.
func (s *status) valid() int {
	n := 0
	for i := range s.Metrics {
		if s.Metrics[i].Valid {
			n++
		}
	}
	return n
}

func (s *status) printMetrics(b *strings.Builder) {
	if s.MetricsError != "" {
		fmt.Fprintf(b, "\nThe list below is not complete: %s\n", s.MetricsError)
	}
	if len(s.Metrics) == 0 {
		return
	}
	b.WriteByte('\n')
	tw := tabwriter.NewWriter(b, 0, 0, 3, ' ', 0)
	_, _ = fmt.Fprintln(tw, "METRIC\tVALUE\tAGE\tVALID\tREFERENCES")
	for i := range s.Metrics {
		m := &s.Metrics[i]
		value, age := "-", "-"
		if m.Value != "" {
			value = m.Value
		}
		if m.AgeSeconds != nil {
			age = seconds(*m.AgeSeconds)
		}
		_, _ = fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\n", m.Name, value, age, yes(m.Valid), strings.Join(m.References, ", "))
	}
	_ = tw.Flush() // a Builder accepts all
	for i := range s.Metrics {
		m := &s.Metrics[i]
		if m.Error == "" {
			continue
		}
		fmt.Fprintf(b, "\n%s: %s\n", m.Name, m.Error)
		if len(m.References) > 0 {
			b.WriteString(hint(m.References))
		}
	}
}

func yes(v bool) string {
	if v {
		return "yes"
	}
	return "no"
}

// hint says how to find the mend for one of the autoscalers that refer to a
// metric: doctor walks the chain of an HPA, and knows nothing of others.
func hint(references []string) string {
	for _, ref := range references {
		if ns, name, ok := strings.Cut(strings.TrimPrefix(ref, "hpa:"), "/"); ok && !strings.Contains(ns, ":") {
			return fmt.Sprintf("  find the mend: kelpie doctor hpa/%s -n %s\n", name, ns)
		}
	}
	for _, ref := range references {
		if id, ok := strings.CutPrefix(ref, "wpa:"); ok {
			ns, name, _ := strings.Cut(id, "/")
			return fmt.Sprintf("  find the mend: kubectl describe watermarkpodautoscaler/%s -n %s\n", name, ns)
		}
	}
	return ""
}
