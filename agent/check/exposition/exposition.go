// Package exposition reads pages in Prometheus' text format.
//
// It owns that a page is read a family at a time, so that memory does not
// follow the size of the page, and that a bad family costs no other. The format
// itself is read by Prometheus' own library.
package exposition

import (
	"bytes"
	"fmt"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// Accept is the media type to ask for.
const Accept = "text/plain;version=0.0.4;q=1,*/*;q=0.1"

// Families calls each for every metric family of page whose name is wanted, in
// the order of the page. A family whose lines are not together is given in
// parts. The error tells of the first family that cannot be read and how many
// there were; the others have been given all the same.
func Families(page []byte, want func(name string) bool, each func(*dto.MetricFamily)) error {
	r := reader{parser: expfmt.NewTextParser(model.UTF8Validation), want: want, each: each}
	start, family := 0, ""
	for at := 0; at < len(page); {
		end := at + lineLength(page[at:])
		if name, ok := familyOf(page[at:end], family); ok && name != family {
			r.read(page[start:at], family)
			start, family = at, name
		}
		at = end
	}
	r.read(page[start:], family)
	if r.bad == 0 {
		return nil
	}
	return fmt.Errorf("%d metric families cannot be read, the first is %q: %w", r.bad, r.firstName, r.first)
}

func lineLength(b []byte) int {
	if i := bytes.IndexByte(b, '\n'); i >= 0 {
		return i + 1
	}
	return len(b)
}

// familyOf returns the family that a line belongs to, given that of the line
// before. ok is false when the line does not say.
func familyOf(line []byte, current string) (name string, ok bool) {
	line = bytes.TrimLeft(line, " \t")
	if rest, comment := bytes.CutPrefix(line, []byte("#")); comment {
		fields := bytes.Fields(rest)
		if len(fields) < 2 || string(fields[0]) != "TYPE" && string(fields[0]) != "HELP" {
			return "", false
		}
		return string(bytes.Trim(fields[1], `"`)), true
	}
	end := bytes.IndexAny(line, "{ \t\r\n")
	if end <= 0 { // an empty line, or a name within the braces
		return "", false
	}
	sample := line[:end]
	if rest, ok := bytes.CutPrefix(sample, []byte(current)); ok && current != "" {
		switch string(rest) {
		case "", "_bucket", "_sum", "_count":
			return current, true
		}
	}
	return string(sample), true
}

type reader struct {
	parser    expfmt.TextParser
	want      func(string) bool
	each      func(*dto.MetricFamily)
	bad       int
	firstName string
	first     error
}

// read parses the lines of one family.
func (r *reader) read(lines []byte, name string) {
	if name != "" && !r.want(name) || len(bytes.TrimSpace(lines)) == 0 {
		return
	}
	if lines[len(lines)-1] != '\n' {
		lines = append(bytes.Clone(lines), '\n')
	}
	families, err := r.parser.TextToMetricFamilies(bytes.NewReader(lines))
	if err != nil {
		if r.bad++; r.bad == 1 {
			r.firstName, r.first = name, err
		}
		return // what the parser has got so far may hold a sample without its value
	}
	for _, f := range families {
		if r.want(f.GetName()) {
			r.each(f)
		}
	}
}
