package backend

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
)

// Print writes s for people.
func (s *Status) Print(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "kelpie-backend %s, up %s\n", s.Version, time.Since(s.Started).Round(time.Second))
	if st := s.Store; st == nil {
		b.WriteString("\nThe store is being opened: the write-ahead log is replayed.\n")
	} else {
		fmt.Fprintf(&b, "\nStore\n  series            %d of %d metrics\n  points accepted   %d (%.1f/s)\n", st.Series, st.MetricNames, st.Accepted, s.AcceptedPerSec)
		for _, reason := range slices.Sorted(maps.Keys(st.Refused)) {
			fmt.Fprintf(&b, "  points refused    %d (%.1f/s) %s\n", st.Refused[reason], s.RefusedPerSecond[reason], reason)
		}
		printRefused(&b, "series limit", st.RefusedSeries)
		printRefused(&b, "total limit", st.RefusedTotal)
		printRefused(&b, "name limit", st.RefusedNames)
		fmt.Fprintf(&b, "  disk              %s, %s of it write-ahead log; %s free\n", Size(st.DiskBytes), Size(st.WALBytes), Size(st.FreeBytes))
		if st.SnapshotBytes > 0 {
			fmt.Fprintf(&b, "  snapshots         %s beside it\n", Size(st.SnapshotBytes))
		}
	}
	if v := s.Stream; v != nil && v.Queries > 0 {
		fmt.Fprintf(&b, "\nStanding queries\n  queries           %d, reading %d series\n  subscribers       %d\n  fast lane         %d metrics come every second\n",
			v.Queries, v.Contexts, v.Subscribers, v.FastMetrics)
	}
	if l := s.Limits; l != nil {
		fmt.Fprintf(&b, "\nLimits\n  file              %s, read %s\n", l.File, l.Read.Format(time.DateTime))
		if l.Error != "" {
			fmt.Fprintf(&b, "  not in force      %s\n", l.Error)
		}
	}
	if len(s.SlowestQueries) > 0 {
		b.WriteString("\nSlowest queries of the last hour\n")
		for _, q := range s.SlowestQueries {
			fmt.Fprintf(&b, "  %s  %8.1f ms  %6d series over %s  %s\n", q.At.Format(time.TimeOnly), q.Seconds*1000, q.Series, time.Duration(q.Span)*time.Second, q.Query)
		}
	}
	if len(s.Errors) > 0 {
		b.WriteString("\nLast warnings and errors\n")
		for _, e := range s.Errors {
			fmt.Fprintf(&b, "  %s  %s  %s%s\n", e.At.Format(time.TimeOnly), e.Level, e.Message, attributes(e.Attrs))
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// printRefused lists what a limit refused, by metric name.
func printRefused(b *strings.Builder, limit string, refused map[string]uint64) {
	for _, name := range slices.Sorted(maps.Keys(refused)) {
		fmt.Fprintf(b, "  %-17s %s refused %d times\n", limit, name, refused[name])
	}
}

func attributes(attrs map[string]string) string {
	var b strings.Builder
	for _, k := range slices.SortedFunc(maps.Keys(attrs), cmp.Compare) {
		fmt.Fprintf(&b, " %s=%q", k, attrs[k])
	}
	return b.String()
}

// Size is n bytes in the unit in which it is read most easily.
func Size(n int64) string {
	f, units := float64(n), "BKMGTP"
	for f >= 1024 && len(units) > 1 {
		f, units = f/1024, units[1:]
	}
	if units[0] == 'B' {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %ciB", f, units[0])
}
