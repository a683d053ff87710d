package kubelet

import (
	"math"
	"strconv"
	"strings"
)

// suffixes are those of Kubernetes' quantities. Two letters come first.
var suffixes = []struct {
	text  string
	scale float64
}{
	{"Ki", 1 << 10}, {"Mi", 1 << 20}, {"Gi", 1 << 30}, {"Ti", 1 << 40}, {"Pi", 1 << 50}, {"Ei", 1 << 60},
	{"n", 1e-9}, {"u", 1e-6}, {"m", 1e-3}, {"k", 1e3}, {"M", 1e6}, {"G", 1e9}, {"T", 1e12}, {"P", 1e15}, {"E", 1e18},
}

// quantity reads a quantity such as 500m, 1.5Gi or 2e3 as a number.
func quantity(text string) (float64, bool) {
	scale := 1.0
	for _, s := range suffixes {
		if number, ok := strings.CutSuffix(text, s.text); ok {
			text, scale = number, s.scale
			break
		}
	}
	if strings.ContainsAny(text, "_xXpPiInN") { // what ParseFloat takes and Kubernetes does not
		return 0, false
	}
	v, err := strconv.ParseFloat(text, 64)
	v *= scale
	return v, err == nil && !math.IsInf(v, 0)
}
