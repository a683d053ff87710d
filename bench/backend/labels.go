package main

import (
	"cmp"
	"slices"
	"strings"

	"github.com/prometheus/prometheus/prompb"

	"kelpie.dev/kelpie/metric"
)

// labelsOf returns s's name, host and tags as labels, sorted as remote write
// wants them.
func labelsOf(s *metric.Series) []prompb.Label {
	labels := []prompb.Label{{Name: "__name__", Value: s.Name}, {Name: "host", Value: s.Host}}
	for _, tag := range s.Tags {
		key, value, _ := strings.Cut(tag, ":")
		labels = append(labels, prompb.Label{Name: key, Value: value})
	}
	slices.SortFunc(labels, func(a, b prompb.Label) int { return cmp.Compare(a.Name, b.Name) })
	return labels
}
