package intake

import (
	"context"
	"encoding/json"
	"net/http"

	"google.golang.org/protobuf/encoding/protowire"

	"kelpie.dev/kelpie/backend/answer"
	"kelpie.dev/kelpie/backend/dialect"
)

// otlp takes metrics of OTLP over HTTP, in protobuf or JSON.
func (in *Intake) otlp(w http.ResponseWriter, r *http.Request) {
	kind := mediaType(r)
	isJSON := kind == "application/json"
	body, err := in.otlpHTTP(w, r, kind)
	if err != nil {
		no := in.refused(r.Pattern, r.RemoteAddr, err)
		hangUp(w, no)
		kind, body = otlpStatus(no, isJSON)
		answer.Raw(w, no.code, kind, body)
		return
	}
	answer.Raw(w, http.StatusOK, kind, body)
}

func (in *Intake) otlpHTTP(w http.ResponseWriter, r *http.Request, kind string) (resp []byte, err error) {
	if err := in.auth.Intake(r); err != nil {
		return nil, &refusal{http.StatusForbidden, reasonForbidden, []string{err.Error()}}
	}
	if kind != "application/json" && kind != "application/x-protobuf" {
		return nil, &refusal{http.StatusUnsupportedMediaType, reasonEncoding, []string{"content type must be application/x-protobuf or application/json"}}
	}
	err = in.process(w, r, otlpLimits, func(body []byte) (func(context.Context) error, error) {
		b, err := in.foreign.OTLP(body, kind == "application/json", in.now())
		if err != nil {
			return nil, err
		}
		return func(ctx context.Context) error {
			if err := in.storeForeign(ctx, b, dialectOTLP); err != nil {
				return err
			}
			resp, err = b.OTLPAnswer(kind == "application/json")
			return err
		}, nil
	})
	return resp, err
}

// storeForeign normalizes and stores what another dialect said. What is refused
// on the way is noted in b.
func (in *Intake) storeForeign(ctx context.Context, b *dialect.Batch, name string) error {
	var out outcome
	if err := in.appendForeign(ctx, b, &out); err != nil {
		b.Undo()
		return err
	}
	b.Refuse(out.points, out.lines()...)
	in.countForeign(b, name)
	return nil
}

func (in *Intake) appendForeign(ctx context.Context, b *dialect.Batch, out *outcome) error {
	series, ds := b.Series, b.Distributions
	raw, err := in.keepRaw(ctx, b)
	if err != nil {
		return err
	}
	if !raw {
		series, ds = in.normalize(series, out), in.normalizeDistributions(ds, out)
	}
	if err := in.append(ctx, series, out); err != nil {
		return err
	}
	return in.appendDistributions(ctx, ds, out)
}

func (in *Intake) countForeign(b *dialect.Batch, name string) {
	taken := max(0, b.Points-b.Refused-b.First-b.Again-b.Stale)
	for outcome, n := range map[string]int{"taken": taken, "refused": b.Refused, "first": b.First, "repeated": b.Again, "stale": b.Stale} {
		in.metrics.foreign.WithLabelValues(name, outcome).Add(float64(n))
	}
}

// otlpStatus is the body of an error of OTLP over HTTP: a google.rpc.Status.
func otlpStatus(no *refusal, isJSON bool) (kind string, body []byte) {
	if !isJSON {
		body = protowire.AppendTag(nil, 1, protowire.VarintType)
		body = protowire.AppendVarint(body, uint64(no.grpcCode()))
		body = protowire.AppendTag(body, 2, protowire.BytesType)
		return "application/x-protobuf", protowire.AppendString(body, no.Error())
	}
	body, err := json.Marshal(map[string]any{"code": no.grpcCode(), "message": no.Error()})
	if err != nil {
		body = []byte(`{}`)
	}
	return "application/json", body
}
