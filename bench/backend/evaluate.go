package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"strconv"
	"time"

	"kelpie.dev/kelpie/backend/auth"
	"kelpie.dev/kelpie/backend/queryapi"
	"kelpie.dev/kelpie/backend/quota"
	"kelpie.dev/kelpie/backend/store"
	"kelpie.dev/kelpie/query"
)

// evaluated is what the values of standing queries cost when each is asked for.
type evaluated struct {
	Narrow, Wide       float64 // ms of processor time, one query by query.Value
	NarrowAPI, WideAPI float64 // the same by the query API, as the cluster agent polls, without a network
	Values             map[string]float64
}

// evaluateEach evaluates t's queries at the instant at which stand ends, each from
// a store that holds the same.
func evaluateEach(ctx context.Context, t standingTask) (out evaluated, err error) {
	now := int64(lastPoint - warmUp - t.Rounds)
	clock := func() time.Time { return time.Unix(now, 0) }
	st, err := storeTask{Dir: t.Dir}.open(clock)
	if err != nil {
		return out, err
	}
	defer func() { err = errors.Join(err, st.Close()) }()
	series := t.all()
	for n := range warmUp + t.Rounds {
		now++
		setPoints(series, 0, n, now)
		for first := 0; first < len(series); first += batchSize {
			if err := st.Append(ctx, series[first:min(first+batchSize, len(series))]); err != nil {
				return out, err
			}
		}
	}
	runtime.GC()
	narrow, wide := t.texts()
	narrow = narrow[:min(t.Sample, len(narrow))]
	out.Values = map[string]float64{}
	value := func(text string) error {
		e, err := query.Parse(text)
		if err != nil {
			return err
		}
		reading, ok, err := query.Value(ctx, st, e, now)
		if err == nil && !ok {
			err = errors.New("no value")
		}
		out.Values[text] = reading.Value
		return err
	}
	api, err := overAPI(ctx, st, clock)
	if err != nil {
		return out, err
	}
	for _, m := range []struct {
		into  *float64
		texts []string
		ask   func(string) error
	}{{&out.Narrow, narrow, value}, {&out.Wide, wide, value}, {&out.NarrowAPI, narrow, api}, {&out.WideAPI, wide, api}} {
		if *m.into, err = perQuery(m.texts, m.ask); err != nil {
			return out, err
		}
	}
	return out, nil
}

// perQuery is the processor time, in ms, that asking takes on average.
func perQuery(texts []string, ask func(string) error) (float64, error) {
	took, err := spent(func() error {
		for _, text := range texts {
			if err := ask(text); err != nil {
				return fmt.Errorf("%s: %w", text, err)
			}
		}
		return nil
	})
	return millis(took) / float64(max(1, len(texts))), err
}

// open lets every reader in.
type open struct{}

// Allow implements queryapi.Authorizer.
func (open) Allow(*http.Request, string) (auth.Grant, error) { return auth.Grant{Key: "bench"}, nil }

// overAPI returns what asks GET /api/v1/query for the last five minutes.
func overAPI(ctx context.Context, st *store.Store, clock func() time.Time) (func(text string) error, error) {
	limits, err := quota.New(quota.Options{Rates: "off", Now: clock})
	if err != nil {
		return nil, err
	}
	api, err := queryapi.New(queryapi.Options{Source: st, Store: st, Auth: open{}, Quota: limits, Now: clock})
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	api.Register(mux)
	return func(text string) error {
		now := clock().Unix()
		q := url.Values{"query": {text}, "from": {strconv.FormatInt(now-300, 10)}, "to": {strconv.FormatInt(now, 10)}}
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, httptest.NewRequestWithContext(ctx, http.MethodGet, "/api/v1/query?"+q.Encode(), nil))
		if w.Code != http.StatusOK {
			return fmt.Errorf("%d: %s", w.Code, w.Body)
		}
		return nil
	}, nil
}
