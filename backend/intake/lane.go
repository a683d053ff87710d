package intake

import (
	"net/http"

	"kelpie.dev/kelpie/backend/answer"
	"kelpie.dev/kelpie/metric/payload"
)

// answerSeries answers a request for series. To an agent that names the fast
// lane that it knows, the header names the one there is, and the body tells it
// if that is another.
func (in *Intake) answerSeries(w http.ResponseWriter, r *http.Request, body payload.ErrorBody) {
	known, asks := r.Header[payload.FastLaneHeader]
	if in.lane == nil || !asks {
		answer.JSON(w, http.StatusAccepted, body)
		return
	}
	etag, metrics := in.lane.FastMetrics()
	w.Header().Set(payload.FastLaneHeader, etag)
	if len(known) > 0 && known[0] == etag {
		answer.JSON(w, http.StatusAccepted, body)
		return
	}
	answer.JSON(w, http.StatusAccepted, struct {
		payload.ErrorBody
		FastLane []string `json:"fast_lane"`
	}{body, append([]string{}, metrics...)})
}
