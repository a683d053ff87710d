// Package served prints external metrics as whoever is on call reads them: a line
// each in the order that the cluster agent gives, the worst first, and below it
// the full words about those that are not well.
//
// It owns what a person reads of a cluster agent's status, and in which form. It
// does not ask for it.
package served

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/term"
)

// A Table prints rows.
type Table struct {
	Rows  []Metric
	Now   time.Time
	Width int // of a line; 0 means as long as it takes, with the queries
}

// Bounds of a line. Narrower than the least nothing can be read, wider than the
// most the eye loses the line.
const (
	leastWidth = 80
	mostWidth  = 120
)

// Width is what a line may have on w: the terminal's, within bounds.
func Width(w io.Writer) int {
	if f, ok := w.(*os.File); ok {
		if columns, _, err := term.GetSize(int(f.Fd())); err == nil {
			return min(max(columns, leastWidth), mostWidth)
		}
	}
	return mostWidth
}

// Summary counts the rows by state, most first.
func Summary(rows []Metric) string {
	n, states := 0, map[string]int{}
	var order []string
	for i := range rows {
		if rows[i].Valid {
			n++
		}
		state := rows[i].state()
		if states[state]++; states[state] == 1 {
			order = append(order, state)
		}
	}
	text := fmt.Sprintf("%d of %d are valid", n, len(rows))
	if len(order) == 0 || len(order) == 1 && order[0] == "Valid" {
		return text
	}
	slices.SortFunc(order, func(a, b string) int { return cmp.Or(cmp.Compare(states[b], states[a]), cmp.Compare(a, b)) })
	for i, state := range order {
		order[i] = strconv.Itoa(states[state]) + " " + state
	}
	return text + ": " + strings.Join(order, ", ")
}

// columns of a line; two of them give way when it gets too long.
const (
	colMetric     = 1
	colReferences = 6
	leastMetric   = 20
	leastRefs     = 12
	gap           = 2
)

// Lines writes a line for each row.
func (t Table) Lines(b *strings.Builder) {
	if len(t.Rows) == 0 {
		return
	}
	sources := map[string]bool{}
	for i := range t.Rows {
		sources[t.Rows[i].Source] = true
	}
	lines := [][]string{{"STATE", "METRIC", "VALUE", "AGE", "NEXT", "SOURCE", "REFERENCES", "QUERY"}}
	for i := range t.Rows {
		lines = append(lines, t.cells(&t.Rows[i]))
	}
	widths := make([]int, len(lines[0]))
	hidden := func(col int) bool { return col == 5 && len(sources) < 2 || col == 7 && t.Width != 0 }
	total := -gap
	for col := range widths {
		if hidden(col) {
			continue
		}
		for _, l := range lines {
			widths[col] = max(widths[col], utf8.RuneCountInString(l[col]))
		}
		total += widths[col] + gap
	}
	if t.Width != 0 {
		over := total - t.Width
		for _, give := range []struct{ col, least int }{{colReferences, leastRefs}, {colMetric, leastMetric}} {
			if take := min(over, widths[give.col]-give.least); take > 0 {
				widths[give.col] -= take
				over -= take
			}
		}
	}
	for _, l := range lines {
		var line strings.Builder
		for col, cell := range l {
			if hidden(col) {
				continue
			}
			cell = shorten(cell, widths[col], col == colMetric)
			line.WriteString(cell + strings.Repeat(" ", widths[col]-utf8.RuneCountInString(cell)+gap))
		}
		b.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
}

func (t Table) cells(r *Metric) []string {
	age, refs := "-", "-"
	if !r.At.IsZero() {
		age = short(t.Now.Sub(r.At))
	}
	if n := len(r.References); n > 0 {
		refs = r.References[0]
		if t.Width == 0 {
			refs = strings.Join(r.References, ",")
		} else if n > 1 {
			refs += fmt.Sprintf(" +%d", n-1)
		}
	}
	return []string{r.state(), r.Metric, cmp.Or(r.Value, "-"), age, t.next(r), cmp.Or(r.Source, "-"), refs, cmp.Or(r.Query, "-")}
}

// next says when a value is asked for again.
func (t Table) next(r *Metric) string {
	switch {
	case r.Pushed:
		return "pushed"
	case r.NextAttempt.IsZero():
		return "-"
	case r.BackOff:
		return "back-off " + short(r.NextAttempt.Sub(t.Now))
	}
	return short(r.NextAttempt.Sub(t.Now))
}

// Words writes the reasons of the rows that are not well, with all that was too
// long for a line, and where the mend is found.
func (t Table) Words(b *strings.Builder) {
	for i := range t.Rows {
		r := &t.Rows[i]
		words := cmp.Or(r.Error, r.Warning)
		if words == "" {
			continue
		}
		fmt.Fprintf(b, "\n%s: %s\n", r.Metric, words)
		if r.Query != "" && t.Width != 0 {
			fmt.Fprintf(b, "  query: %s\n", r.Query)
		}
		if len(r.References) > 1 {
			fmt.Fprintf(b, "  references: %s\n", strings.Join(r.References, ", "))
		}
		b.WriteString(Hint(r.References))
	}
	for i := range t.Rows {
		for _, text := range t.Rows[i].Advice {
			fmt.Fprintf(b, "\nAdvice on %s, to %s\n", t.Rows[i].Metric, text)
		}
	}
}

// short is a duration of few characters, as an age is read: 40s, 3m, 2h, 5d.
func short(d time.Duration) string {
	d = max(d, 0)
	switch {
	case d < 2*time.Minute:
		return strconv.Itoa(int(d.Seconds())) + "s"
	case d < 2*time.Hour:
		return strconv.Itoa(int(d.Minutes())) + "m"
	case d < 48*time.Hour:
		return strconv.Itoa(int(d.Hours())) + "h"
	}
	return strconv.Itoa(int(d.Hours()/24)) + "d"
}

// shorten cuts text to n characters: in its middle, where a name says least, or
// at its end.
func shorten(text string, n int, middle bool) string {
	r := []rune(text)
	if len(r) <= n {
		return text
	}
	tail := 0
	if middle {
		tail = n / 2
	}
	return string(r[:n-1-tail]) + "…" + string(r[len(r)-tail:])
}

// Hint says how to find the mend for one of the autoscalers that refer to a
// metric: doctor walks the chain of an HPA, and knows nothing of others.
func Hint(references []string) string {
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
