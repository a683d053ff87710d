// Package figure writes what a benchmark found: tables for people, then one
// JSON object a line for programs.
//
// It does not know what was measured.
package figure

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strings"
	"text/tabwriter"
)

// A Figure is one result of Kelpie's beside that of its best peer, or beside a
// limit. The JSON names are a contract: docs and the release check read them.
type Figure struct {
	Figure    string  `json:"figure"`
	Unit      string  `json:"unit"`
	Kelpie    float64 `json:"kelpie"`
	Peer      string  `json:"peer"` // "limit" when PeerValue is one and no program reached it
	PeerValue float64 `json:"peer_value"`
	Ratio     float64 `json:"ratio"` // how many times better Kelpie is; 0 when it cannot be said
}

// A Value is one program's result.
type Value struct {
	Program string
	Value   float64 // 0 or less means that there is none
}

// Direction says which of two values is better.
type Direction int

// The directions.
const (
	HigherIsBetter Direction = iota
	LowerIsBetter
)

// Against returns Kelpie's value beside the best of peers. Without any peer the
// figure has none, and no ratio.
func Against(name, unit string, d Direction, kelpie float64, peers []Value) Figure {
	f := Figure{Figure: name, Unit: unit, Kelpie: round(kelpie)}
	for _, p := range peers {
		better := p.Value > f.PeerValue
		if d == LowerIsBetter {
			better = p.Value < f.PeerValue
		}
		if p.Value > 0 && (f.Peer == "" || better) {
			f.Peer, f.PeerValue = p.Program, p.Value
		}
	}
	if f.Peer != "" && kelpie > 0 {
		f.Ratio = f.PeerValue / kelpie
		if d == HigherIsBetter {
			f.Ratio = kelpie / f.PeerValue
		}
	}
	f.PeerValue, f.Ratio = round(f.PeerValue), round(f.Ratio)
	return f
}

// round keeps four digits: a benchmark knows no more.
func round(v float64) float64 {
	if v == 0 || math.IsInf(v, 0) || math.IsNaN(v) {
		return 0
	}
	scale := math.Pow(10, 3-math.Floor(math.Log10(math.Abs(v))))
	return math.Round(v*scale) / scale
}

// WriteJSON writes one object a line.
func WriteJSON(w io.Writer, figures []Figure) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	for _, f := range figures {
		if err := e.Encode(f); err != nil {
			return fmt.Errorf("write figure %s: %w", f.Figure, err)
		}
	}
	return nil
}

// A Table is a heading and rows of cells, the first of which are names.
type Table struct {
	Title  string
	Header []string
	Rows   [][]string
	Notes  []string
}

// Add appends a row.
func (t *Table) Add(cells ...string) { t.Rows = append(t.Rows, cells) }

// WriteText writes t in columns: the first to the left, the rest to the right.
func (t *Table) WriteText(w io.Writer) error {
	width := len(t.Header)
	for _, row := range t.Rows {
		width = max(width, len(row))
	}
	first := 0
	for _, row := range append([][]string{t.Header}, t.Rows...) {
		if len(row) > 0 {
			first = max(first, len([]rune(row[0])))
		}
	}
	if _, err := fmt.Fprintf(w, "\n%s\n", t.Title); err != nil {
		return fmt.Errorf("write table: %w", err)
	}
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	for _, row := range append([][]string{t.Header}, t.Rows...) {
		cells := make([]string, width)
		copy(cells, row)
		cells[0] += strings.Repeat(" ", first-len([]rune(cells[0])))
		if _, err := fmt.Fprintln(tw, strings.Join(cells, "\t")+"\t"); err != nil {
			return fmt.Errorf("write table: %w", err)
		}
	}
	if err := tw.Flush(); err != nil {
		return fmt.Errorf("write table: %w", err)
	}
	for _, note := range t.Notes {
		if _, err := fmt.Fprintln(w, "  "+note); err != nil {
			return fmt.Errorf("write table: %w", err)
		}
	}
	return nil
}

// Count writes n with three digits and a letter: 1.25 M.
func Count(n float64) string {
	for _, u := range []struct {
		size   float64
		suffix string
	}{{1e9, " G"}, {1e6, " M"}, {1e3, " k"}} {
		if n >= u.size {
			return fmt.Sprintf("%.3g%s", n/u.size, u.suffix)
		}
	}
	return fmt.Sprintf("%.3g", n)
}
