package dialect

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"kelpie.dev/kelpie/metric"
)

var errReference = errors.New("it refers to a symbol that is not there")

// context turns labels into a series' name, host, device and tags. The name is
// set as far as it is known, also with an error.
func (w *writing) context(r *written) (metric.Series, error) {
	s := metric.Series{Type: metric.Gauge}
	n := (len(r.labels) + len(r.refs)) / 2
	if len(r.refs)%2 != 0 {
		return s, errReference
	}
	tags := make([]string, 0, n)
	var err error
	for i := range n {
		var ref [2]uint32
		var name, value string
		if w.v2 {
			ref = [2]uint32{r.refs[2*i], r.refs[2*i+1]}
			if int64(ref[0]) >= int64(len(w.symbols)) || int64(ref[1]) >= int64(len(w.symbols)) {
				return s, errReference
			}
			name, value = w.symbols[ref[0]], w.symbols[ref[1]]
		} else {
			name, value = r.labels[2*i], r.labels[2*i+1]
		}
		switch {
		case value == "": // the same as no label
		case name == "__name__":
			s.Name = value
		case len(name) > maxLabelValue || len(value) > maxLabelValue:
			err = fmt.Errorf("its label %.60q has more than %d bytes", name, maxLabelValue)
		case name == "":
			err = errors.New("a label has no name")
		case name == "host" && ownForm(value):
			s.Host = value
		case name == "device" && ownForm(value):
			s.Device = value
		default:
			tags = append(tags, w.tag(ref, name, value))
		}
	}
	if w.v2 && r.unit > 0 && r.unit < uint64(len(w.symbols)) {
		s.Unit = writeUnit(w.symbols[r.unit])
	}
	s.Tags = metric.NewTags(tags...)
	switch {
	case s.Name == "":
		return s, errors.New("it has no name")
	case !utf8.ValidString(s.Name):
		return s, errors.New("its name is not UTF-8 text")
	case len(s.Name) > maxWriteName:
		return s, fmt.Errorf("its name has more than %d bytes", maxWriteName)
	case n > maxLabels:
		return s, fmt.Errorf("it has more than %d labels", maxLabels)
	}
	return s, err
}

// ownForm reports whether a host or device is stored as it is. Others are tags,
// which keep their case.
func ownForm(value string) bool {
	return len(value) <= 255 && utf8.ValidString(value) && strings.ToLower(value) == value && strings.TrimSpace(value) == value
}

// tag makes the tag of a label and notes it where Datadog would have written it
// otherwise. A colon in a name would end the key.
func (w *writing) tag(ref [2]uint32, name, value string) string {
	if tag := w.tags[ref]; tag != "" {
		return tag
	}
	key := strings.ReplaceAll(name, ":", "_")
	tag := strings.ToValidUTF8(key+":"+value, "_")
	if metric.NormalizeTag(tag) != tag {
		w.b.Raw[strings.ToValidUTF8(key, "_")] = true
	}
	if w.v2 {
		w.tags[ref] = tag
	}
	return tag
}

// writeUnit is Datadog's name of a unit of Prometheus, which are in the plural.
func writeUnit(unit string) string {
	switch unit {
	case "seconds", "bytes", "volts", "amperes", "joules", "meters", "grams":
		return strings.TrimSuffix(unit, "s")
	}
	return ""
}
