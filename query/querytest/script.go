package querytest

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"kelpie.dev/kelpie/metric"
)

// A step is a line of a script with the indented lines below it.
type step struct {
	line     int
	verb     string   // load, eval or value
	words    []string // of a load, after the verb
	from, to int64    // of an eval; from alone of a value
	query    string
	want     []string // expected lines, words one space apart, attributes indented by two
	body     []string // of a load
}

// parseScript splits a script into steps. Errors begin with the line's number.
func parseScript(text string) ([]step, error) {
	var steps []step
	for i, raw := range strings.Split(text, "\n") {
		line := strings.TrimRight(raw, " \t\r")
		content := strings.TrimLeft(line, " \t")
		if content == "" || content[0] == '#' {
			continue
		}
		if indent := len(line) - len(content); indent > 0 {
			if len(steps) == 0 {
				return nil, fmt.Errorf("%d: indented line before any step", i+1)
			}
			steps[len(steps)-1].addLine(content, indent > 2)
			continue
		}
		s := step{line: i + 1}
		if err := s.parse(content); err != nil {
			return nil, fmt.Errorf("%d: %w", i+1, err)
		}
		steps = append(steps, s)
	}
	return steps, nil
}

func (s *step) parse(content string) error {
	verb, rest, _ := strings.Cut(content, " ")
	s.verb = verb
	var err error
	switch verb {
	case "load":
		s.words = strings.Fields(rest)
		if len(s.words) == 0 {
			return fmt.Errorf("load needs a step")
		}
	case "eval":
		window, text, _ := strings.Cut(rest, " ")
		from, to, ok := strings.Cut(window, "..")
		if !ok {
			return fmt.Errorf("eval needs a window such as 0s..60s, got %q", window)
		}
		if s.from, err = offset(from); err == nil {
			s.to, err = offset(to)
		}
		s.query = text
	case "value":
		at, text, _ := strings.Cut(rest, " ")
		s.from, err = offset(at)
		s.query = text
	default:
		return fmt.Errorf("unknown step %q", verb)
	}
	return err
}

func (s *step) addLine(content string, attribute bool) {
	switch {
	case s.verb == "load":
		s.body = append(s.body, content)
	case strings.HasPrefix(content, "error "):
		s.want = append(s.want, content)
	case attribute:
		s.want = append(s.want, "  "+content)
	default:
		s.want = append(s.want, strings.Join(expand(strings.Fields(content)), " "))
	}
}

// A loading is what the first line of a load step says.
type loading struct {
	pattern       metric.Series
	distributions bool
	start, every  int64
}

// series returns what a load step stores and the seconds between its points.
func (s *step) series(base int64) (series []metric.Series, distributions []metric.Distribution, every int64, err error) {
	l, err := s.loading(base)
	if err != nil {
		return nil, nil, 0, err
	}
	for _, line := range s.body {
		one, values, err := l.context(line)
		switch {
		case err != nil:
		case l.distributions:
			d := metric.Distribution{Name: one.Name, Host: one.Host, Tags: one.Tags}
			d.Points, err = l.sketches(values)
			distributions = append(distributions, d)
		default:
			one.Points, err = l.points(values)
			series = append(series, one)
		}
		if err != nil {
			return nil, nil, 0, fmt.Errorf("series %q: %w", line, err)
		}
	}
	return series, distributions, l.every, nil
}

func (s *step) loading(base int64) (l loading, err error) {
	if l.every, err = offset(s.words[0]); err != nil {
		return l, err
	}
	l.pattern = metric.Series{Type: metric.Gauge, Interval: l.every}
	l.start = base
	for _, w := range s.words[1:] {
		key, value, _ := strings.Cut(w, "=")
		var at int64
		switch key {
		case "type":
			if l.distributions = value == "distribution"; !l.distributions {
				l.pattern.Type, err = metric.ParseType(value)
			}
		case "unit":
			l.pattern.Unit = value
		case "interval":
			l.pattern.Interval, err = offset(value)
		case "from":
			at, err = offset(value)
			l.start = base + at
		default:
			err = fmt.Errorf("unknown option %q", w)
		}
		if err != nil {
			return l, err
		}
	}
	return l, nil
}

// context reads "name{tags} values" into a copy of the pattern, and the values.
func (l *loading) context(line string) (one metric.Series, values []string, err error) {
	one = l.pattern
	head, rest, ok := strings.Cut(line, "}")
	name, tags, hasTags := strings.Cut(head, "{")
	if !ok || !hasTags {
		return one, nil, fmt.Errorf("expected name{tags} values")
	}
	one.Name = name
	for _, tag := range strings.Split(tags, ",") {
		if host, isHost := strings.CutPrefix(tag, "host:"); isHost {
			one.Host = host
			continue
		}
		one.Tags = one.Tags.Union(tag)
	}
	return one, expand(strings.Fields(rest)), nil
}

func (l *loading) points(words []string) (points []metric.Point, err error) {
	for i, word := range words {
		if word == "_" {
			continue
		}
		v, err := strconv.ParseFloat(word, 64)
		if err != nil {
			return nil, err
		}
		points = append(points, metric.Point{Time: l.start + int64(i)*l.every, Value: v})
	}
	return points, nil
}

func (l *loading) sketches(words []string) (points []metric.SketchPoint, err error) {
	for i, word := range words {
		if word == "_" {
			continue
		}
		var b metric.SketchBuilder
		for part := range strings.SplitSeq(word, ",") {
			if err := addValues(&b, part); err != nil {
				return nil, err
			}
		}
		points = append(points, metric.SketchPoint{Time: l.start + int64(i)*l.every, Sketch: b.Sketch()})
	}
	return points, nil
}

// addValues adds "5", "5*1000" or "1..100".
func addValues(b *metric.SketchBuilder, text string) error {
	from, to, isRange := strings.Cut(text, "..")
	if !isRange {
		to = from
	}
	if value, _, repeated := strings.Cut(text, "*"); repeated {
		from, to = value, value
	}
	first, err := strconv.ParseFloat(from, 64)
	if err != nil {
		return err
	}
	last, err := strconv.ParseFloat(to, 64)
	if err != nil {
		return err
	}
	times := 1
	if _, n, repeated := strings.Cut(text, "*"); repeated {
		if times, err = strconv.Atoi(n); err != nil {
			return err
		}
	}
	for v := first; v <= last; v++ {
		for range times {
			b.Add(v, 1)
		}
	}
	return nil
}

// expand replaces words such as 30x3 by three words 30.
func expand(words []string) []string {
	var out []string
	for _, w := range words {
		value, times, repeated := strings.Cut(w, "x")
		n, err := strconv.Atoi(times)
		if !repeated || err != nil || strings.HasPrefix(w, "{") {
			out = append(out, w)
			continue
		}
		for range n {
			out = append(out, value)
		}
	}
	return out
}

// offset parses a duration of whole seconds.
func offset(text string) (int64, error) {
	d, err := time.ParseDuration(text)
	if err != nil || d%time.Second != 0 {
		return 0, fmt.Errorf("%q is not a whole number of seconds", text)
	}
	return int64(d / time.Second), nil
}
