// Package advice knows which type of an autoscaler's target suits which query.
//
// It owns the two mistakes that a query's own text gives away. It is pure, and
// silent where the text does not tell: an average of one series may be a total.
package advice

import (
	"strings"

	autoscalingv2 "k8s.io/api/autoscaling/v2"

	"kelpie.dev/kelpie/query"
)

// The reasons, fit for an event.
const (
	TotalByValue  = "TotalWithValueTarget"
	EachByAverage = "AverageWithAverageValueTarget"
)

// What is said for them.
const (
	totalByValue = "the query adds up (sum:…), and with a target of type Value the autoscaler multiplies its replicas by value/target at each sync. " +
		"A total of the load does not fall as replicas come, so it goes on to maxReplicas, or down to minReplicas. " +
		"Take a target of type AverageValue, which divides the total by the replicas"
	eachByAverage = "the query is an average or a percentile over pods or hosts, and a target of type AverageValue divides it by the replicas once more, " +
		"so the autoscaler goes to value/target replicas, however many share the load. " +
		"Take a target of type Value, or have the query add up (sum:…)"
)

// Target returns what is to be said of a query in Datadog's language and a target
// of a type: a reason and a sentence, or "" and "" for nothing.
func Target(text string, t autoscalingv2.MetricTargetType) (reason, sentence string) {
	e, err := query.Parse(text)
	if err != nil {
		return "", "" // said elsewhere
	}
	switch k := kindOf(e); {
	case k == total && t == autoscalingv2.ValueMetricType:
		return TotalByValue, totalByValue
	case k == each && t == autoscalingv2.AverageValueMetricType:
		return EachByAverage, eachByAverage
	default:
		return "", ""
	}
}

// kind is what a number is of.
type kind uint8

const (
	unknown  kind = iota
	constant      // a number in the text
	total         // all together: it does not depend on how many share it
	each          // one of them, on average or at a percentile
)

// perEach are the beginnings of names whose series come from each pod or host.
var perEach = []string{"kubernetes.", "container.", "containerd.", "docker.", "cri.", "system."}

// same are the functions of which a number stays of the kind that it was.
var same = map[string]bool{
	"abs": true, "default_zero": true, "exclude_null": true, "clamp_min": true, "clamp_max": true, "cutoff_min": true, "cutoff_max": true,
	"per_second": true, "per_minute": true, "per_hour": true, "moving_rollup": true, "autosmooth": true, "timeshift": true, "calendar_shift": true,
	"ewma_3": true, "ewma_5": true, "ewma_7": true, "ewma_10": true, "ewma_20": true, "median_3": true, "median_5": true, "median_7": true, "median_9": true,
	"rollingavg_5": true, "rollingavg_13": true, "rollingavg_21": true, "rollingavg_29": true,
	"hour_before": true, "day_before": true, "week_before": true, "month_before": true, "forecast": true, "trend_line": true, "robust_trend": true,
}

func kindOf(e query.Expr) kind {
	switch e := e.(type) {
	case *query.Number:
		return constant
	case *query.Query:
		return kindOfLeaf(e)
	case *query.Call:
		if same[e.Func] {
			return kindOf(e.X)
		}
	case *query.Binary:
		return combined(e.Op, kindOf(e.Left), kindOf(e.Right))
	}
	return unknown
}

func kindOfLeaf(q *query.Query) kind {
	a := q.Aggregator.Name
	switch {
	case a == "sum":
		return total
	case strings.HasPrefix(a, "p"): // a percentile; no other begins so
		return each
	case a == "avg" || a == "":
		for _, prefix := range perEach {
			if strings.HasPrefix(q.Metric, prefix) {
				return each
			}
		}
	}
	return unknown
}

// combined is the kind of two numbers' sum, difference, product or quotient. A
// quotient of two queries is neither: it may be a share, or replicas wanted.
func combined(op byte, left, right kind) kind {
	switch {
	case right == constant:
		return left
	case op == '/':
		return unknown
	case left == constant:
		return right
	case op != '*' && left == right:
		return left
	default:
		return unknown
	}
}
