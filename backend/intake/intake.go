// Package intake takes in what Datadog's agents and clients send, and the metrics
// of OpenTelemetry and Prometheus.
//
// It owns the intake's routes, limits and answers: it checks the key, undoes
// the encoding, has the body decoded, normalizes names and tags as Datadog does,
// and answers only after what came is stored, with what was refused of it. It
// does not know how things are stored nor what other dialects mean, and what it
// does not use yet it takes and counts: an agent that is refused on one route
// keeps its data and tries for ever.
package intake

import (
	"context"
	"errors"
	"log/slog"
	"mime"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/semaphore"
	"golang.org/x/time/rate"
	"google.golang.org/grpc"

	"kelpie.dev/kelpie/backend/answer"
	"kelpie.dev/kelpie/backend/dialect"
	"kelpie.dev/kelpie/backend/record"
	"kelpie.dev/kelpie/metric"
	"kelpie.dev/kelpie/metric/payload"
)

// Appender stores series and distributions durably. After an error nothing is
// stored for sure, and the sender is asked to try again.
type Appender interface {
	Append(ctx context.Context, series []metric.Series) error
	AppendDistributions(ctx context.Context, distributions []metric.Distribution) error
}

// Recorder keeps events, service checks and hosts' metadata durably. What it
// refuses one by one, it has a line for.
type Recorder interface {
	AddEvents(ctx context.Context, events []metric.Event) (added []record.Event, refused []string, err error)
	AddChecks(ctx context.Context, checks []metric.ServiceCheck) (refused []string, err error)
	SetHost(ctx context.Context, h record.Host) error
}

// A RawKeeper is told of keys of tags before tags with them are stored as they
// were sent. After a *record.LimitError they may not be.
type RawKeeper interface {
	AddRawKeys(ctx context.Context, keys map[string]bool) error
}

// Authorizer checks the API key of a request. Its errors' texts are answered.
type Authorizer interface {
	Intake(r *http.Request) error
}

// FastLane knows which metrics agents are to send every second.
type FastLane interface {
	// FastMetrics returns the sorted list, not to be modified, and its name.
	FastMetrics() (etag string, metrics []string)
}

// Options are an Intake's parts. Store and Auth are required.
type Options struct {
	Store Appender
	Auth  Authorizer
	// FastLane is told to agents that ask for it; nil has none.
	FastLane FastLane
	// Records is told of events, service checks and hosts; nil takes them
	// without effect.
	Records Recorder
	// RawKeys is told of labels of remote write that are not as Datadog
	// normalizes tags; nil normalizes them.
	RawKeys RawKeeper
	// BodyBytes bounds the bodies that are being received, all together, as
	// they are on the wire; 0 means 64 MiB. Requests beyond wait a little.
	BodyBytes int64
	// DecodeBytes bounds the bodies that are being decoded, all together, as
	// they are when decompressed; 0 means 128 MiB.
	DecodeBytes int64
	Now         func() time.Time      // nil means time.Now
	Registerer  prometheus.Registerer // nil registers nothing
	Log         *slog.Logger          // nil discards
}

// Intake serves the routes of Register. See New.
type Intake struct {
	store    Appender
	records  Recorder
	rawKeys  RawKeeper
	auth     Authorizer
	lane     FastLane
	log      *slog.Logger
	metrics  *metrics
	bodies   *semaphore.Weighted
	decoding *semaphore.Weighted
	foreign  *dialect.Translator
	grpc     *grpc.Server
	now      func() time.Time
	seldom   rate.Sometimes
	told     sync.Map // routes that the log called ignored
}

// patience is how long a request waits for its share of memory.
const patience = 10 * time.Second

// New returns an Intake.
func New(o Options) (*Intake, error) {
	if o.Store == nil || o.Auth == nil {
		return nil, errors.New("intake: store and key check are required")
	}
	if o.BodyBytes == 0 {
		o.BodyBytes = 64 << 20
	}
	if o.DecodeBytes == 0 {
		o.DecodeBytes = 128 << 20
	}
	if o.BodyBytes < v1Limits.wire || o.DecodeBytes < v1Limits.decoded {
		return nil, errors.New("intake: memory bounds are smaller than one allowed body")
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	in := &Intake{
		store: o.Store, records: o.Records, rawKeys: o.RawKeys, auth: o.Auth, lane: o.FastLane, log: o.Log, metrics: newMetrics(o.Registerer),
		bodies: semaphore.NewWeighted(o.BodyBytes), decoding: semaphore.NewWeighted(o.DecodeBytes),
		foreign: dialect.New(dialect.Options{Began: o.Now()}), now: o.Now,
		seldom: rate.Sometimes{First: 5, Interval: 10 * time.Second},
	}
	in.grpc = in.newGRPC()
	return in, nil
}

// Routes that agents use and that are taken without effect. Answering 404 would
// fill the agents' retry queues.
var ignoredRoutes = []string{
	"/api/intake/metrics/v3/series", "/api/intake/metrics/v3/sketches",
	"/api/intake/metrics/v3beta/series", "/api/intake/metrics/v3beta/sketches",
	"/api/v1/collector", "/api/v1/container", "/api/v1/discovery", "/api/v1/connections", "/api/v1/orchestrator",
	"/api/v2/orch", "/api/v2/orchmanif",
}

// Register adds the intake's routes to mux.
func (in *Intake) Register(mux *http.ServeMux) {
	mux.HandleFunc("GET /api/v1/validate", in.validate)
	mux.HandleFunc("POST /api/v1/series", in.seriesV1)
	mux.HandleFunc("POST /api/v2/series", in.seriesV2)
	mux.HandleFunc("POST /api/beta/sketches", in.sketches)
	mux.HandleFunc("POST /api/v1/sketches", in.sketches)
	mux.HandleFunc("POST /api/v1/distribution_points", in.distributionPoints)
	mux.HandleFunc("POST /v1/metrics", in.otlp)
	mux.HandleFunc("POST /api/intake/otlp/v1/metrics", in.otlp) // Datadog's own path
	mux.HandleFunc("POST "+otlpMethod, in.otlpGRPC)
	mux.HandleFunc("POST /api/v1/write", in.remoteWrite)
	mux.HandleFunc("POST /prometheus/api/v1/write", in.remoteWrite)
	for route, serve := range map[string]http.HandlerFunc{
		"/api/v1/check_run": in.checks, "/api/v2/service_checks": in.checks,
		"/api/v1/events": in.event, "/api/v2/events": in.eventV2,
		"/intake": in.metadata, "/intake/{$}": in.metadata, "/api/v1/metadata": in.metadata, "/api/v2/host_metadata": in.metadata,
	} {
		if in.records == nil {
			serve = in.ignore
		}
		mux.HandleFunc("POST "+route, serve)
	}
	for _, route := range ignoredRoutes {
		mux.HandleFunc("POST "+route, in.ignore)
	}
}

func (in *Intake) validate(w http.ResponseWriter, r *http.Request) {
	if in.allowed(w, r) {
		answer.Raw(w, http.StatusOK, "application/json", []byte(`{"valid":true}`))
	}
}

func (in *Intake) seriesV1(w http.ResponseWriter, r *http.Request) {
	if in.take(w, r, v1Limits, in.series(payload.DecodeV1JSON)) != nil {
		answer.Raw(w, http.StatusAccepted, "text/json", []byte(`{"status": "ok"}`))
	}
}

func (in *Intake) seriesV2(w http.ResponseWriter, r *http.Request) {
	decode := payload.DecodeV2JSON
	if mediaType(r) == "application/x-protobuf" {
		decode = payload.DecodeV2
	}
	if out := in.take(w, r, v2Limits, in.series(decode)); out != nil {
		in.answerSeries(w, r, payload.ErrorBody{Errors: out.lines()})
	}
}

// mediaType is the request's content type without its parameters, or "".
func mediaType(r *http.Request) string {
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil {
		return ""
	}
	return kind
}

func (in *Intake) sketches(w http.ResponseWriter, r *http.Request) {
	if in.take(w, r, sketchLimits, in.distributions(payload.DecodeSketches)) != nil {
		answer.Raw(w, http.StatusAccepted, "application/json", []byte(`{"status": "ok"}`))
	}
}

func (in *Intake) distributionPoints(w http.ResponseWriter, r *http.Request) {
	if in.take(w, r, v1Limits, in.distributions(payload.DecodeDistributionPoints)) != nil {
		answer.Raw(w, http.StatusAccepted, "text/json", []byte(`{"status": "ok"}`))
	}
}

// A decoder reads a body. What it returns stores what was in it. What is refused
// of it alone goes to out.
type decoder func(body []byte, out *outcome) (store func(context.Context) error, err error)

func (in *Intake) series(decode func([]byte) ([]metric.Series, error)) decoder {
	return func(body []byte, out *outcome) (func(context.Context) error, error) {
		series, err := decode(body)
		series = in.normalize(series, out)
		return func(ctx context.Context) error { return in.append(ctx, series, out) }, err
	}
}

func (in *Intake) distributions(decode func([]byte) ([]metric.Distribution, error)) decoder {
	return func(body []byte, out *outcome) (func(context.Context) error, error) {
		ds, err := decode(body)
		ds = in.normalizeDistributions(ds, out)
		return func(ctx context.Context) error { return in.appendDistributions(ctx, ds, out) }, err
	}
}

// take runs a request to its end. It returns nil where nothing of it is stored;
// the error is then answered.
func (in *Intake) take(w http.ResponseWriter, r *http.Request, lim limits, decode decoder) *outcome {
	if !in.allowed(w, r) {
		return nil
	}
	var out outcome
	if err := in.process(w, r, lim, func(body []byte) (func(context.Context) error, error) { return decode(body, &out) }); err != nil {
		in.fail(w, r, err)
		return nil
	}
	return &out
}

func (in *Intake) process(w http.ResponseWriter, r *http.Request, lim limits, decode func([]byte) (func(context.Context) error, error)) error {
	wire, done, err := in.receive(w, r, lim)
	defer done()
	if err != nil {
		return err
	}
	body, release, err := in.inflate(r, wire, lim)
	defer release()
	if err != nil {
		return err
	}
	in.metrics.bytes.WithLabelValues("wire").Add(float64(len(wire)))
	in.metrics.bytes.WithLabelValues("decoded").Add(float64(len(body)))
	store, err := decode(body)
	if err != nil {
		return undecoded(err)
	}
	// A client that hangs up must not tear its batch: it would send all of it again.
	return unstored(store(context.WithoutCancel(r.Context())))
}

// allowed checks the key and answers if it does not hold.
func (in *Intake) allowed(w http.ResponseWriter, r *http.Request) bool {
	err := in.auth.Intake(r)
	if err != nil {
		in.fail(w, r, &refusal{http.StatusForbidden, reasonForbidden, []string{err.Error()}})
	}
	return err == nil
}
