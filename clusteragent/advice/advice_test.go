package advice

import (
	"strings"
	"testing"

	autoscalingv2 "k8s.io/api/autoscaling/v2"
)

func TestTarget(t *testing.T) {
	for text, want := range map[string]kind{
		// Totals.
		"sum:nginx.requests{app:web}":                            total,
		"sum:nginx.requests{app:web}.as_count().rollup(sum, 60)": total,
		"sum:a{*} + sum:b{*}":                                    total,
		"sum:queue.in{*} - sum:queue.out{*}":                     total,
		"2 * sum:a{*} / 60":                                      total,
		"ewma_5(default_zero(sum:a{*}))":                         total,
		"moving_rollup(sum:a{*}.as_rate(), 300, 'max')":          total,
		// Of each.
		"avg:kubernetes.cpu.usage.total{app:web} / 1000000": each,
		"kubernetes.memory.usage{app:web}":                  each,
		"p95:request.latency{app:web}":                      each,
		"100 - avg:system.cpu.idle{*}":                      each,
		// The text does not tell.
		"avg:rabbitmq.queue.messages{queue:jobs}": unknown,
		"avg:nginx.requests{app:web}.rollup(30)":  unknown,
		"max:kubernetes.cpu.usage.total{*}":       unknown,
		"avg:nginx.requests{app:web}.as_count()":  unknown,
		"sum:errors{*} / sum:requests{*}":         unknown,
		"60 / sum:a{*}":                           unknown,
		"sum:a{*} * sum:b{*}":                     unknown,
		"sum:a{*} / avg:kubernetes.replicas{*}":   unknown,
		"sum:a{*} + p95:b{*}":                     unknown,
		"count_nonzero(sum:a{*} by {host})":       unknown,
		"-sum:a{*}":                               unknown,
		"5":                                       constant,
		"sum:a{":                                  unknown,
	} {
		for _, target := range []autoscalingv2.MetricTargetType{autoscalingv2.ValueMetricType, autoscalingv2.AverageValueMetricType, autoscalingv2.UtilizationMetricType} {
			reason, sentence := Target(text, target)
			wanted, word := "", ""
			switch {
			case want == total && target == autoscalingv2.ValueMetricType:
				wanted, word = TotalByValue, "Take a target of type AverageValue"
			case want == each && target == autoscalingv2.AverageValueMetricType:
				wanted, word = EachByAverage, "Take a target of type Value"
			}
			if reason != wanted || !strings.Contains(sentence, word) || (reason == "") != (sentence == "") {
				t.Errorf("%s with %s: %q (%s), want %q", text, target, reason, sentence, wanted)
			}
		}
	}
}
