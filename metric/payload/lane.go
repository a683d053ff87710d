package payload

import (
	"encoding/json"
	"fmt"
)

// FastLaneHeader names, in a request for series, the list of metrics that the
// agent sends every second, empty if it has none yet; in the answer of an intake
// that keeps such a list, the one it is to follow. Where the two differ, the
// answer's body has the list. The text is in the form that net/http gives to
// names of headers.
const FastLaneHeader = "Kelpie-Fast-Lane"

// maxFastMetrics bounds the list that is believed.
const maxFastMetrics = 10_000

// DecodeFastLane reads the list from an answer's body.
func DecodeFastLane(body []byte) ([]string, error) {
	var answer struct {
		FastLane []string `json:"fast_lane"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return nil, fmt.Errorf("read the fast lane from the intake's answer: %w", err)
	}
	if len(answer.FastLane) > maxFastMetrics {
		return nil, fmt.Errorf("the intake asks for %d metrics every second: %d at most", len(answer.FastLane), maxFastMetrics)
	}
	return answer.FastLane, nil
}
