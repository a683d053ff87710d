package figure

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
)

// A Report collects what one invocation finds, and prints it at its end.
type Report struct {
	Figures  []Figure
	Notes    []string
	failures []string // what could not be measured
}

// Compare adds a figure of Kelpie's beside its peers.
func (r *Report) Compare(name, unit string, d Direction, kelpie float64, peers ...Value) {
	r.Figures = append(r.Figures, Against(name, unit, d, kelpie, peers))
}

// Limit adds a figure that has a limit and no peer.
func (r *Report) Limit(name, unit string, value, limit float64) {
	r.Compare(name, unit, LowerIsBetter, value, Value{"limit", limit})
}

// Note adds a line below the figures.
func (r *Report) Note(format string, args ...any) {
	r.Notes = append(r.Notes, fmt.Sprintf(format, args...))
}

// Failed names what was not measured.
func (r *Report) Failed(what string, err error) {
	Progress("FAILED %s: %v", what, err)
	lines := strings.Split(strings.TrimSpace(err.Error()), "\n")
	r.Note("FAILED %s: %s", what, strings.Join(lines[max(0, len(lines)-3):], "\n"))
	r.failures = append(r.failures, what)
}

// Finish prints all figures, as a table and as JSON lines. Where something was
// not measured, that is its error.
func (r *Report) Finish(w io.Writer) error {
	summary := Table{Title: "Figures", Header: []string{"", "kelpie", "best peer", "", "ratio", "unit"}, Notes: r.Notes}
	for _, f := range r.Figures {
		summary.Add(f.Figure, Count(f.Kelpie), Count(f.PeerValue), f.Peer, fmt.Sprintf("%.3g", f.Ratio), f.Unit)
	}
	if err := summary.WriteText(w); err != nil {
		return err
	}
	if _, err := fmt.Fprintln(w); err != nil {
		return fmt.Errorf("write figures: %w", err)
	}
	if err := WriteJSON(w, r.Figures); err != nil {
		return err
	}
	switch {
	case len(r.failures) > 0:
		return fmt.Errorf("not measured, or not all of it: %s", strings.Join(r.failures, "; "))
	case len(r.Figures) == 0:
		return errors.New("nothing was measured")
	}
	return nil
}

// Progress tells people, beside the results, what goes on.
func Progress(format string, args ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", args...)
}
