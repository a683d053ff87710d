package intake

import (
	"strings"

	"kelpie.dev/kelpie/metric"
)

// Bounds of one series. Datadog names none for tags and hosts; these are far
// beyond what agents send and keep a store's labels of sane size.
const (
	maxTags       = 500
	maxHostLength = 255
)

// normalize turns names and tags into what Datadog's backend stores. A series
// that has no usable name is dropped and counted. It reuses series' memory.
func (in *Intake) normalize(series []metric.Series, out *outcome) []metric.Series {
	kept := series[:0]
	for _, s := range series {
		if reason := normalizeSeries(&s); reason != "" {
			in.refuse(out, reason, &s)
			continue
		}
		kept = append(kept, s)
	}
	return kept
}

// normalizeDistributions is normalize of distributions.
func (in *Intake) normalizeDistributions(ds []metric.Distribution, out *outcome) []metric.Distribution {
	kept := ds[:0]
	for _, d := range ds {
		s := metric.Series{Name: d.Name, Host: d.Host, Tags: d.Tags}
		if reason := normalizeSeries(&s); reason != "" {
			in.refuse(out, reason, &s)
			continue
		}
		d.Name, d.Host, d.Tags = s.Name, s.Host, s.Tags
		kept = append(kept, d)
	}
	return kept
}

// normalizeSeries normalizes s, or says why it cannot be kept.
func normalizeSeries(s *metric.Series) (reason string) {
	name, ok := metric.NormalizeName(s.Name)
	if !ok {
		return reasonName
	}
	s.Name = name
	s.Host, s.Device = strings.TrimSpace(s.Host), strings.TrimSpace(s.Device)
	if len(s.Host) > maxHostLength || len(s.Device) > maxHostLength {
		return reasonHost
	}
	if len(s.Tags) > maxTags {
		return reasonTags
	}
	s.Tags = normalizeTags(s.Tags)
	return ""
}

// normalizeTags normalizes tags in their own memory.
func normalizeTags(tags metric.Tags) metric.Tags {
	changed := false
	for i, tag := range tags {
		if n := metric.NormalizeTag(tag); n != tag {
			tags[i], changed = n, true
		}
	}
	if changed {
		return metric.NewTags(tags...)
	}
	return tags
}
