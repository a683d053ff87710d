package store

import (
	"slices"
	"strings"

	"github.com/prometheus/prometheus/model/labels"

	"kelpie.dev/kelpie/metric"
)

// The bytes and labels of the encoding that the package comment describes.
const (
	sep        = "\x1f" // around and between several values of a key
	markBare   = "\x1e" // the value of a bare tag
	markEmpty  = "\x1d" // an empty value
	nameLabel  = "__name__"
	tagPrefix  = "__tag__"
	ownHost    = "__host__"
	ownDevice  = "__device__"
	partLabel  = "__part__"
	keyHost    = "host"
	keyDevice  = "device"
	controlSet = sep + markBare + markEmpty
)

// encodeLabels returns the labels of s's context, and the labels among them
// that hold several values or a bare tag. part is that of a distribution, or "".
func encodeLabels(s *metric.Series, part string) (labels.Labels, []string) {
	b := labels.NewScratchBuilder(len(s.Tags) + 4)
	b.Add(nameLabel, s.Name)
	if part != "" {
		b.Add(partLabel, part)
	}
	values := make(map[string][]string, len(s.Tags)+2)
	for _, tag := range s.Tags {
		key, value := splitTag(tag)
		values[key] = append(values[key], value)
	}
	mergeOwn(&b, values, keyHost, ownHost, s.Host)
	mergeOwn(&b, values, keyDevice, ownDevice, s.Device)
	var several []string
	for key, vs := range values {
		if len(vs) > 1 {
			slices.Sort(vs)
			vs = slices.Compact(vs)
		}
		if len(vs) > 1 || vs[0] == markBare {
			several = append(several, encodeKey(key))
		}
		b.Add(encodeKey(key), joinValues(vs))
	}
	b.Sort()
	return b.Labels(), several
}

// mergeOwn adds the series' own host or device, in lower case as queries name
// it, to the tags of that key. Where that alone would not tell the own one, a
// reserved label does.
func mergeOwn(b *labels.ScratchBuilder, values map[string][]string, key, reserved, own string) {
	own = clean(own)
	lower := strings.ToLower(own)
	if len(values[key]) > 0 || lower != own {
		b.Add(reserved, encodeValue(own))
	}
	if own != "" {
		values[key] = append(values[key], lower)
	}
}

// decodeLabels is the inverse of encodeLabels for the metric's context: name,
// host, device and canonical tags.
func decodeLabels(l labels.Labels) metric.Series {
	s := metric.Series{Name: l.Get(nameLabel)}
	tags := make([]string, 0, l.Len())
	hostOwn, deviceOwn := l.Get(ownHost), l.Get(ownDevice)
	// Nearly all tags have one value: their texts share one string.
	var scratch [256]byte
	text, ends := scratch[:0], make([]int, 0, 16)
	l.Range(func(label labels.Label) {
		switch label.Name {
		case nameLabel, partLabel, ownHost, ownDevice:
		case keyHost:
			s.Host, tags = splitOwn(tags, label, hostOwn)
		case keyDevice:
			s.Device, tags = splitOwn(tags, label, deviceOwn)
		default:
			key := strings.TrimPrefix(label.Name, tagPrefix)
			if strings.HasPrefix(label.Value, sep) || label.Value == markBare {
				for _, v := range splitValues(label.Value) {
					tags = append(tags, joinTag(key, v))
				}
				return
			}
			text = append(append(append(text, key...), ':'), decodeValue(label.Value)...)
			ends = append(ends, len(text))
		}
	})
	all, start := string(text), 0
	for _, end := range ends {
		tags = append(tags, all[start:end])
		start = end
	}
	s.Tags = metric.OwnTags(tags)
	return s
}

// splitOwn undoes mergeOwn: it returns the own host or device, and tags with
// the other values of its label appended.
func splitOwn(tags []string, label labels.Label, reserved string) (own string, all []string) {
	if reserved == "" {
		return label.Value, tags
	}
	own = decodeValue(reserved)
	lower := strings.ToLower(own)
	for _, v := range splitValues(label.Value) {
		if v != lower {
			tags = append(tags, joinTag(label.Name, v))
		}
	}
	return own, tags
}

func encodeKey(key string) string {
	if key == "" || strings.HasPrefix(key, "__") {
		return tagPrefix + key
	}
	return key
}

// splitTag returns the key of tag and its value as stored.
func splitTag(tag string) (key, value string) {
	tag = clean(tag)
	key, value, ok := strings.Cut(tag, ":")
	if !ok {
		return tag, markBare
	}
	return key, encodeValue(value)
}

func joinTag(key, stored string) string {
	if stored == markBare {
		return key
	}
	return key + ":" + decodeValue(stored)
}

func encodeValue(v string) string {
	if v == "" {
		return markEmpty
	}
	return v
}

func decodeValue(v string) string {
	if v == markEmpty {
		return ""
	}
	return v
}

func joinValues(vs []string) string {
	if len(vs) == 1 {
		return vs[0]
	}
	return sep + strings.Join(vs, sep) + sep
}

func splitValues(stored string) []string {
	if !strings.HasPrefix(stored, sep) {
		return []string{stored}
	}
	return strings.Split(strings.Trim(stored, sep), sep)
}

// clean keeps the encoding's own bytes and broken UTF-8 out of what it encodes.
// Normalized tags and hosts pass unchanged.
func clean(s string) string {
	if strings.ContainsAny(s, controlSet) {
		s = strings.Map(func(r rune) rune {
			if strings.ContainsRune(controlSet, r) {
				return '_'
			}
			return r
		}, s)
	}
	return strings.ToValidUTF8(s, "_")
}
